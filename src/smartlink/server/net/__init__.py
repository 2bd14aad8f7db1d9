"""Sockets and bytes."""
