"""What anonymization costs, measured: `make utility`, and `scripts/advise.py` for data of one's own."""
