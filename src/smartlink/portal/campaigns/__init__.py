"""Campaigns: what is advertised, for how much, and whether it runs."""
