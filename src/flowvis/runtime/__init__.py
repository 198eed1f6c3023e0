"""What both daemons share: settings, components, metrics, health, ledger, logs."""
