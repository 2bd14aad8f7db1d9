"""The HTTP API for publishers, and the upgrade to WebSocket, on one port."""
