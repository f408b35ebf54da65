"""Command-line tools: heartbeat logs, state and output checks, reports, and generators of files that are derived from code."""
