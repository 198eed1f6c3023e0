"""IPFIX (RFC 7011): bytes to columns and back; sessions; no I/O."""
