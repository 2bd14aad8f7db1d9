"""What speaks to clients and to publishers."""
