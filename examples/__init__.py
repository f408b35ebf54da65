"""Real ECG to try things on, and the demo."""
