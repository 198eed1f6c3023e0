"""The schema of the store, derived from the fields; no I/O."""
