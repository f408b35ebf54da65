"""The core: turns identifiable samples into batches that may leave. Pure: no I/O, no clock, no logging, no environment."""
