"""The flow-aggregator: collect, correlate, fan out to sinks, API."""
