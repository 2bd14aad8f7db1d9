"""What the Redis engines share: where Redis is, how it is spoken to, what things are called there."""
