"""What happens in a run, and how it is reported: events, totals, log, progress."""
