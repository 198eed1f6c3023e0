"""A packet capture: its packets, their streams, and the IPFIX messages in these. Pure."""
