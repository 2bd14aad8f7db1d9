"""Drivers: one file per service that envelopes can be sent through."""
