"""What the budgets of docs/design.md are measured with: `python -m benchmarks NAME [--json]`."""
