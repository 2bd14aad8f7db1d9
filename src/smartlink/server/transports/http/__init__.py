"""The HTTP API for publishers, and the WebSocket upgrade, on one port."""
