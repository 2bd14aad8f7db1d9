"""The authorization endpoints for your framework's own router. Each module needs only its framework."""
