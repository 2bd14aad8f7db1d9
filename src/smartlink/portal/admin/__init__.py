"""The admin pages' API: figures, users, channels, failed events, and an audit log."""
