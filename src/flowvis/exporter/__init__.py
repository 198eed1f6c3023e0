"""The flow-exporter: connection table, enrichment, export."""
