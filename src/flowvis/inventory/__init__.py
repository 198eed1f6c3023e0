"""What Kubernetes says: Pods, Services, Nodes, by (IP, time)."""
