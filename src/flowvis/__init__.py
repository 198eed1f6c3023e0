"""Network flow visibility for Kubernetes: connections from the kernel to ClickHouse."""
