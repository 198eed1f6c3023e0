"""Ways out of a daemon: what waits for a destination, and how it gets there or into the books."""
