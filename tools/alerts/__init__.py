"""Prometheus's alerts about flowvis, in one table, and the files that are made of it."""
