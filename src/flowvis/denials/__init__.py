"""Packets that a policy denied, as the kernel's packet log and Antrea's audit log report them."""
