"""Wiring, starting, stopping and replacing the server: one process, its workers, the machine."""
