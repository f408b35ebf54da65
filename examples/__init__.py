"""Sample ECG and the demo."""
