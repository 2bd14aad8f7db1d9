"""Wallets: a double-entry ledger, and what moved in it."""
