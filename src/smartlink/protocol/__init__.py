"""The wire protocol: Pusher Channels protocol 7. Pure: text and time in, decisions out.

Nothing here opens a socket, reads a clock or logs, so every rule can be tested in one line.
"""
