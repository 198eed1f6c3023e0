"""The leaves in plain Python: oracles of the tests, and what runs with FLOWVIS_NATIVE=never."""
