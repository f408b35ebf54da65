"""Durable files and locks, shared by outputs, state and the heartbeat ledger. Knows nothing of the project."""
