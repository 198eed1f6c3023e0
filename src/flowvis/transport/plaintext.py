"""What a peer says inside of TLS: all whole TLS records of what has come, decrypted.

Exporters that send a flow record in a message (Antrea's) make a TLS record of each, and a call of
Python's `ssl` returns one at a time, for more than its decryption costs. So the compiled leaf calls
the OpenSSL that `ssl` itself has loaded, for the session that an SSLObject has; handshake, writing
and everything that is rare stay with `ssl`. Neither the functions nor the session are given out by
it: the first are found by name in the library of the module `_ssl`, the second lies in an object of
`_ssl` between two values that are known from outside. Where any of it is not as expected (another
interpreter, OpenSSL linked statically), `ssl` does the reading as well.
"""

import _ssl
import ctypes
import logging
import re
import ssl
from typing import Any, Protocol

from flowvis import native

log = logging.getLogger(__name__)

_FUNCTIONS = (
    "SSL_read_ex",
    "SSL_get_error",
    "ERR_clear_error",
    "ERR_peek_last_error",
    "ERR_reason_error_string",
)
"""What the leaf calls, in its order."""

_PLACES = re.compile(r"^\[\w*] | \(_ssl\.c:\d+\)$")

_WORD = ctypes.sizeof(ctypes.c_void_p)
_HEAD = object.__basicsize__
"""Bytes of an object before what its type adds."""


class PlaintextReader(Protocol):
    """Decrypts what a session has been given."""

    @property
    def ended(self) -> bool:
        """Whether nothing more can come."""

    @property
    def fault(self) -> str:
        """What ended it, in OpenSSL's words; "" when the peer did."""

    def read(self, into: memoryview, filled: int) -> int:
        """Decrypt all that is whole, from `filled` on; return how much of `into` is filled then.

        What came before a fault is good and is not lost.
        """


class SessionReader:
    """Reads by `ssl`, one TLS record in a call."""

    def __init__(self, session: ssl.SSLObject) -> None:
        self.ended = False
        self.fault = ""
        self._read: Any = session.read

    def read(self, into: memoryview, filled: int) -> int:
        """Decrypt all that is whole."""
        read, size = self._read, len(into)
        try:
            while filled < size:
                if not (count := read(size - filled, into[filled:])):
                    self.ended = True
                    break
                filled += count
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.ended = True
        except ssl.SSLError as error:
            self.ended = True
            self.fault = words(error)
        return filled


class Library:
    """The functions of the OpenSSL that `ssl` has loaded; OSError or AttributeError without it."""

    def __init__(self) -> None:
        path = getattr(_ssl, "__file__", None)
        if path is None:  # part of the interpreter, which may have symbols of another library
            raise OSError("the module _ssl has no file")
        library = ctypes.CDLL(path)
        if int(library.OpenSSL_version_num()) & 0xFFFFFFFF != ssl.OPENSSL_VERSION_NUMBER:
            raise OSError("another OpenSSL than that of ssl")
        self._context_of: Any = library.SSL_get_SSL_CTX
        self._context_of.restype = ctypes.c_void_p
        self._context_of.argtypes = [ctypes.c_void_p]
        self._read_ahead: Any = library.SSL_set_read_ahead
        self._read_ahead.restype = None
        self._read_ahead.argtypes = [ctypes.c_void_p, ctypes.c_int]
        addresses = [
            ctypes.cast(getattr(library, name), ctypes.c_void_p).value or 0 for name in _FUNCTIONS
        ]
        self._library = library  # which the addresses are in
        self._functions = native.OpenSsl(*addresses)

    def reader(self, session: ssl.SSLObject) -> PlaintextReader | None:
        """Return a reader of a session, or None if it is not where it is expected.

        An object of `_ssl` is, in all versions since 3.6: its socket (none here), the session, the
        context. The neighbours are compared before the session is touched, then its own context.
        """
        inner = getattr(session, "_sslobj", None)
        context = session.context
        if inner is None or min(_room(inner) - 2 * _WORD, _room(context)) < _WORD:
            return None
        socket, pointer, owner = (ctypes.c_void_p * 3).from_address(id(inner) + _HEAD)
        if socket or not pointer or owner != id(context):
            return None
        if self._context_of(pointer) != ctypes.c_void_p.from_address(id(context) + _HEAD).value:
            return None
        self._read_ahead(pointer, 1)  # else each record is taken from memory in two parts
        return native.LibraryReader(self._functions, inner, pointer)


def _room(instance: object) -> int:
    """Bytes of an object that its type has added."""
    return type(instance).__basicsize__ - _HEAD


def _library() -> Library | None:
    if not native.COMPILED:
        return None
    try:
        return Library()
    except (OSError, AttributeError) as error:
        log.info("TLS records are read one at a time: %s", error)
        return None


_LIBRARY = _library()


def plaintext_reader(session: ssl.SSLObject) -> PlaintextReader:
    """Return the fastest reader that there is for a session."""
    return (_LIBRARY and _LIBRARY.reader(session)) or SessionReader(session)


def words(error: ssl.SSLError) -> str:
    """Name a fault in OpenSSL's words; `ssl` lacks the names of some, and has their text alone."""
    text = _PLACES.sub("", str(error.args[-1])) if error.args else ""
    return (error.reason or text or "unknown").replace("_", " ").lower()
