"""Who is on a channel, over all nodes."""
