"""Measurements, each against something in the same run. Nothing here is a test."""
