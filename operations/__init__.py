"""What an operator runs beside the service: verify, retry, report. The service imports nothing of it."""
