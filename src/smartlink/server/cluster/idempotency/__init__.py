"""Stores which publishing calls were already answered."""
