"""asyncio and TLS: servers, clients, back-off, certificates."""
