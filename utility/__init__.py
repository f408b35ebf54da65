"""Measures what anonymization costs the signal: `make utility` on public records, `scripts/advise.py` on a user's own data."""
