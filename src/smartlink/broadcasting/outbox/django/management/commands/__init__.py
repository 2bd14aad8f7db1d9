"""The outbox's commands for `manage.py`."""
