"""Where the inventory comes from: the API server and files."""
