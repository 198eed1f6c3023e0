"""ClickHouse: the schema, the writer, the embedded engine."""
