"""Commands for people: heartbeat logs, checking output, writing the files that are written from code."""
