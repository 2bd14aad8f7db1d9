"""Joins the workers of one machine without Redis: the parent's memory engines, reached over Unix sockets."""
