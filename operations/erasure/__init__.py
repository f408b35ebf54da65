"""Takes one source's rows back from everything that a service released (GDPR Art. 17): `scripts/state.py erase`."""
