"""The last events of a channel, kept for those who come later."""
