"""The realtime server: Pusher Channels over WebSocket and HTTP on one port.

`bootstrap.build` is the way in; everything else receives what it needs.
"""
