"""Presence: who is online, according to the realtime server's connections."""
