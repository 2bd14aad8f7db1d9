"""The last events of a channel, kept for later subscribers."""
