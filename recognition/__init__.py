"""Measures how well a released signal hides whose heart it came from."""
