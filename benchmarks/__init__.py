"""Benchmarks. Each figure is relative to another in the same run. Nothing here is a test."""
