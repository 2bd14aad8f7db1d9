"""What the Redis engines share: addresses, connections, commands, names."""
