"""Wallets, kept as a double-entry ledger."""
