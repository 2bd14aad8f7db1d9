"""Connections that an ASGI server has accepted."""
