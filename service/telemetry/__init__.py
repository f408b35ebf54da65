"""What happens in a run, and who is told: totals, log, progress."""
