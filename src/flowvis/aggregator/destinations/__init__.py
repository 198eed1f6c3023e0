"""The ways out of the aggregator."""
