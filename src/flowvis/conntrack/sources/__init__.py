"""Where the kernel's connections come from: netlink sockets and sysctls."""
