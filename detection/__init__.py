"""Heartbeat detectors of well-kept libraries, behind the core's port."""
