import errno
import socket
import ssl

import pytest

from flowvis.runtime.causes import cause_of


class Wrapped(OSError):
    """As aiohttp wraps what happened."""

    def __init__(self, inner: OSError) -> None:
        super().__init__(
            inner.errno, f"Cannot connect to host x ssl:<object object at 0x7f00> [{inner}]"
        )
        self.os_error = inner


def verification(message: str) -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError(
        1, "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed"
    )
    error.verify_message = message
    return error


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (
            ConnectionRefusedError(errno.ECONNREFUSED, "Connect call failed ('::1', 9)"),
            "connection refused (does it",
        ),
        (ConnectionRefusedError(), "connection refused (does it run, and listen there?)"),
        (
            socket.gaierror(socket.EAI_NONAME, "Name or service not known"),
            "the name is not resolved: name or service",
        ),
        (TimeoutError(), "no answer in time (is it up"),
        (TimeoutError(errno.ETIMEDOUT, "Connection timed out"), "no answer in time (is it up"),
        (OSError(errno.EHOSTUNREACH, "Connect call failed ('192.0.2.1', 9)"), "no route to host"),
        (ConnectionResetError(errno.ECONNRESET, "x"), "connection reset by peer"),
        (
            verification("self-signed certificate."),
            "its certificate is not accepted: self-signed certificate (is it",
        ),
        (RuntimeError("<_io.BytesIO object at 0x7fffdeadbeef>"), "RuntimeError"),
        (RuntimeError(), "RuntimeError"),
        (RuntimeError("two\n lines"), "two lines"),
    ],
)
def test_causes_in_words(error: Exception, text: str) -> None:
    assert cause_of(error).startswith(text)
    if isinstance(error, OSError):
        assert cause_of(Wrapped(error)) == cause_of(error)


def test_how_long_was_waited() -> None:
    assert cause_of(TimeoutError(), 2.5).startswith("no answer in 2.5 s (")
