"""What an operator runs beside the service: verify, retry, report. The service never imports it."""
