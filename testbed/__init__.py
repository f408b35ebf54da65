"""Real servers and simulated wearers for tests, demos and benchmarks. Not part of the service."""
