"""Data files: the registries."""
