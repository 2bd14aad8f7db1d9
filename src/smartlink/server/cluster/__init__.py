"""Shared state of the nodes: the ports and their engines."""
