"""Where denied packets come from: NFLOG sockets and log files."""
