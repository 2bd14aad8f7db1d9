"""What joins machines: the ports for what nodes share, and their engines."""
