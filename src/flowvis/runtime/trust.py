"""Whom a TLS client trusts."""

import ssl


def trusting_only(text: str) -> ssl.SSLContext:
    """Return a client's context that trusts some certificates (PEM) and nobody else.

    ValueError or ssl.SSLError where there are none: `ssl` takes an empty text for the system's.
    """
    if not text:
        raise ValueError("empty")
    return ssl.create_default_context(cadata=text)
