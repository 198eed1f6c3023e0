"""The kernel's connections: netlink bytes to columns, and the sockets they come from."""
