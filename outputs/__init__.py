"""Destinations of batches, one module per kind. README.md in this folder says how to add one."""
