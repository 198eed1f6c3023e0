"""Halves of connections in, one record per connection and interval out; no I/O, no clock."""
