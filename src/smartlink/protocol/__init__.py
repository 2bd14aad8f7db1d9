"""The language spoken on the wire: Pusher Channels protocol 7. Pure: text and time in, decisions out.

Nothing here opens a socket, reads a clock or logs, so every rule of the protocol can be tried in one line.
"""
