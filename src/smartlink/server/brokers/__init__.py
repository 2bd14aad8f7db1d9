"""Carry publications between nodes."""
