"""The tables of connections and of denied ones; no I/O, no clock."""
