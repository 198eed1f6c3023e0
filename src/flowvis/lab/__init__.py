"""Two "nodes" with Pods in network namespaces of one machine."""
