"""What hostile neighbours do to a daemon: a module for each kind, a function for each attack."""
