"""How to use a disk, for outputs, state and the heartbeat ledger alike: bytes that last, and locks. Knows nothing of the project."""
