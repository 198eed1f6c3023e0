"""asyncio, TLS and UDP: servers, clients, back-off, certificates."""
