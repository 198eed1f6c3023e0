"""What the aggregator adds to records: names, policies, the cluster; no I/O, no clock."""
