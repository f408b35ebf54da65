"""Builds parts from the settings. Creates no folder; contacts a server only where that is said."""
