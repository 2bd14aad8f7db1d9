"""Notifications for users, and whether they have been read."""
