"""Whom a TLS client trusts."""

import ssl
from pathlib import Path
from typing import TypeVar

C = TypeVar("C", bound=ssl.SSLContext)


def trusting_each(context: C) -> C:
    """Have a context trust each certificate that it was given, a root or not.

    OpenSSL by itself wants the way to a root, of which a file may have only the CA below: that
    alone is what cert-manager writes for an issuer that others signed. Programs in Go trust it so,
    and Python from 3.13 on.
    """
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


def trusting_file(path: Path | str | None) -> ssl.SSLContext:
    """Trust the certificates in a PEM file, or those of the system; OSError if there are none."""
    return trusting_each(ssl.create_default_context(cafile=path))


def trusting_only(text: str) -> ssl.SSLContext:
    """Return a client's context that trusts some certificates (PEM) and nobody else.

    ValueError or ssl.SSLError where there are none: `ssl` takes an empty text for the system's.
    """
    if not text:
        raise ValueError("empty")
    return trusting_each(ssl.create_default_context(cadata=text))
