"""Notifications: what a user should know about, kept until read."""
