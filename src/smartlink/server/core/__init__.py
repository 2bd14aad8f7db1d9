"""What happens: connections, channels, users; the verbs of one node."""
