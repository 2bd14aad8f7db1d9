"""How the outbox's tables come into a Django database."""
