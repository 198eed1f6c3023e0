"""The aggregator's HTTP API, and what it is asked about."""
