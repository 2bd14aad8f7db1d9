"""Campaigns: their budgets, status, and activity."""
