"""Removes files of released rows, set-aside rows and reports once they are older than RETENTION_DAYS."""
