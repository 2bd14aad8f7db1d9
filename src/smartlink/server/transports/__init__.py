"""The transports for clients and publishers."""
