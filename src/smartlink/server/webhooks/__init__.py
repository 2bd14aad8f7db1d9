"""Webhooks: posts what happens on channels to the applications."""
