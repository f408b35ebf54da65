"""From a due window to a released batch: schedule, count, read, anonymize, verify, release."""
