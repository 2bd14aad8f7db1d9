"""Presence: who is online, as the realtime server's connections say."""
