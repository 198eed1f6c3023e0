"""Asks a running aggregator: one client, and the ways on which it gets there.

A `Way` opens connections, and says in words where it leads and what to look at when it does not.
The control socket and a server's URL are here; that through a cluster's API server is `cluster`.
"""

import http.client
import json
import socket
import ssl
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlencode, urlsplit

from flowvis.aggregator.api.control import check_owner
from flowvis.errors import ApiError, FlowvisError, SettingsError, SystemRefused
from flowvis.filters.errors import remedy
from flowvis.runtime.trust import trusting_file

TIMEOUT_S = 300  # a query may take its time
SILENT_S = 60.0  # a stream says every 15 s that it is alive: nobody is there any more
CONNECT_S = 10.0
MAX_ERROR_BYTES = 64 << 10
PIECE_BYTES = 64 << 10
MAX_LINE_BYTES = 64 << 20  # of a stream: a few hundred records
LOOPBACK = ("localhost", "127.0.0.1", "::1")
UNAUTHENTICATED, FORBIDDEN, MISSING = 401, 403, 404
_MISMATCHES = frozenset({62, 64})  # X509_V_ERR_HOSTNAME_MISMATCH, ..._IP_ADDRESS_MISMATCH
_ANOTHER_NAME = "ask it by a name or an address that its certificate has"


class Refused(FlowvisError):
    """The aggregator answered with an error; `details` has what more it says: code, position."""

    def __init__(self, message: str, details: Mapping[str, Any], filter_text: str = "") -> None:
        super().__init__(message)
        self.details = details
        self.filter_text = filter_text
        """The filter that was sent, which the position is in."""

    @property
    def code(self) -> str:
        """What went wrong, as the API's errors have it: bad-filter, forbidden, no-store."""
        return str(self.details.get("code", ""))

    @property
    def passing(self) -> bool:
        """Whether the same may be answered in a while: a store that is away, too many who ask."""
        return self.code in {"unavailable", "too-many"}

    @property
    def place(self) -> tuple[int, int] | None:
        """Where in the filter, in characters: first, how many; None if it is no filter's error."""
        position, length = self.details.get("position"), self.details.get("length")
        if not self.filter_text or not isinstance(position, int):
            return None
        return position, length if isinstance(length, int) else 0

    @property
    def remedy(self) -> str:
        """What could stand at that place, and what may have been meant; "" if neither is known."""
        expected, suggestion = self.details.get("expected"), self.details.get("suggestion")
        return remedy(
            [str(each) for each in expected] if isinstance(expected, list) else [],
            suggestion if isinstance(suggestion, str) else None,
        )


def passes(error: FlowvisError) -> bool:
    """Whether the same may be answered in a while, as nobody is there now, or can answer."""
    if isinstance(error, Refused):
        return error.passing
    if isinstance(error, ApiError):
        return error.status not in {UNAUTHENTICATED, FORBIDDEN}
    return isinstance(error, SystemRefused)


class Way(Protocol):
    """How an aggregator is reached."""

    where: str
    """In words, for errors."""
    remedy: str
    """What to look at where nobody answers there."""
    distrust: str
    """What to do where its certificate is nobody's that we trust."""

    def connection(self, timeout_s: float | None) -> http.client.HTTPConnection:
        """Return a connection, not open yet; it opens within CONNECT_S or its own timeout."""

    def headers(self) -> Mapping[str, str]:
        """Return what each request says beside what HTTP does: who asks."""


class ControlSocket:
    """The way over a UNIX socket of this machine."""

    remedy = "is it running, and is this its controlSocket? (name it with --socket, or --server)"
    distrust = ""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.where = str(path)

    def connection(self, timeout_s: float | None) -> http.client.HTTPConnection:
        """Return a connection to the socket."""
        return _ControlConnection(self.path, timeout_s)

    def headers(self) -> Mapping[str, str]:
        """Nothing: who may open the socket is its owner."""
        return {"Connection": "close"}


class _ControlConnection(http.client.HTTPConnection):
    """HTTP over a UNIX socket."""

    def __init__(self, path: Path, timeout_s: float | None) -> None:
        super().__init__("flow-aggregator", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        check_owner(self._path)
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class Server:
    """The way to the API's TCP port, as an URL names it."""

    remedy = "is it running, is its apiServer.enable on, and can it be reached from here?"
    distrust = "name the CA that signed it with --ca"

    def __init__(self, url: str, token: str, ca: Path | None) -> None:
        """SettingsError where the URL or the CA cannot be used, or the token would be readable."""
        if "@" in url:  # a password, perhaps: it is nothing to repeat
            raise SettingsError(["--server: write it as https://HOST:PORT, without a user"])
        try:
            parts = urlsplit(url if "://" in url else f"https://{url}")
            self.host, self.port = parts.hostname or "", parts.port
            self.host.encode("idna")
            http.client.HTTPConnection(self.host)  # which opens nothing, and knows what is no host
        except (ValueError, http.client.HTTPException) as error:
            raise SettingsError([f"--server {url!r}: {error}"]) from error
        if parts.scheme not in {"http", "https"} or not self.host or parts.path not in {"", "/"}:
            raise SettingsError([f"--server {url!r}: write it as https://HOST:PORT"])
        if parts.scheme == "http" and self.host not in LOOPBACK:
            raise SettingsError(
                [f"--server {url!r}: a token would be readable on the way: use https"]
            )
        self.where = self.url = f"{parts.scheme}://{parts.netloc}"
        self.token = token
        self._context = trusting(ca) if parts.scheme == "https" else None

    def connection(self, timeout_s: float | None) -> http.client.HTTPConnection:
        """Return a connection to the server."""
        connection = (
            _Patient(self.host, self.port, timeout=CONNECT_S)
            if self._context is None
            else _Secure(self.host, self.port, timeout=CONNECT_S, context=self._context)
        )
        connection.answer_s = timeout_s
        return connection

    def headers(self) -> Mapping[str, str]:
        """Return the token, if there is one."""
        return bearing(self.token) | {"Connection": "close"}


class _Patient(http.client.HTTPConnection):
    """A connection that has less time to open than its answers have."""

    answer_s: float | None = None

    def connect(self) -> None:
        super().connect()
        self.sock.settimeout(self.answer_s)


class _Secure(_Patient, http.client.HTTPSConnection):
    """One by TLS; it opens as HTTPS does."""


def trusting(ca: Path | None) -> ssl.SSLContext:
    """Return whom to trust: a file's certificates, else those of the system. SettingsError."""
    try:
        return trusting_file(ca)
    except (OSError, ssl.SSLError) as error:
        raise SettingsError([f"--ca {ca}: {error.strerror or error}"]) from error


def bearing(token: str) -> dict[str, str]:
    """Return the header of a token; nothing without one."""
    return {"Authorization": f"Bearer {token}"} if token else {}


@dataclass(frozen=True)
class Event:
    """One of a stream of server-sent events (WHATWG HTML 9.2)."""

    kind: str
    data: Any
    id: str
    """With which the stream goes on after it, as Last-Event-ID."""


class Client:
    """One aggregator."""

    def __init__(self, way: Way, timeout_s: float = TIMEOUT_S) -> None:
        self.way = way
        self._timeout_s = timeout_s

    def reach(self) -> None:
        """Find out whether somebody is there, whom we may ask; SystemRefused says what is wrong."""
        connection = self.way.connection(CONNECT_S)
        try:
            with self._reaching():
                self.way.headers()
                connection.connect()
        finally:
            connection.close()

    def get(self, what: str, query: Mapping[str, str] | None = None) -> Any:
        """Return the JSON of a GET."""
        return self._document("GET", what, query, None)

    def post(self, what: str, body: Mapping[str, Any]) -> Any:
        """Return the JSON of a POST."""
        document = self._document("POST", what, None, json.dumps(body).encode())
        if "error" in document:  # it had begun when that came up
            raise _refused(document, None)
        return document

    def lines(self, what: str, query: Mapping[str, str] | None = None) -> Iterator[Any]:
        """Go through JSON lines as they come."""
        with self._answer("GET", what, query, timeout_s=self._timeout_s) as answer:
            for line in _lines(answer):
                yield json.loads(line)

    def events(
        self, what: str, query: Mapping[str, str] | None = None, after: str = ""
    ) -> Generator[Event, None, None]:
        """Go through server-sent events as they come, from one on if its id is given.

        One of no kind and without data says only how far the stream is.
        """
        headers = {"Last-Event-ID": after} if after else {}
        with self._answer("GET", what, query, timeout_s=SILENT_S, headers=headers) as answer:
            kind, last, known, data = "", after, after, []
            for line in _lines(answer):
                name, _, value = line.decode().removesuffix("\r").partition(":")
                value = value.removeprefix(" ")
                if name == "event":
                    kind = value
                elif name == "id":
                    last = value
                elif name == "data":
                    data.append(value)
                elif not name and not line.startswith(b":"):
                    if data:
                        yield Event(kind or "message", json.loads("\n".join(data)), last)
                    elif last != known:
                        yield Event("", None, last)
                    kind, data, known = "", [], last

    def _document(
        self, method: str, what: str, query: Mapping[str, str] | None, body: bytes | None
    ) -> Any:
        with self._answer(method, what, query, body, timeout_s=self._timeout_s) as answer:
            return json.load(answer)

    @contextmanager
    def _answer(
        self,
        method: str,
        what: str,
        query: Mapping[str, str] | None,
        body: bytes | None = None,
        *,
        timeout_s: float,
        headers: Mapping[str, str] | None = None,
    ) -> Iterator[http.client.HTTPResponse]:
        """Ask, and give the answer while it is read; its connection ends with it."""
        connection = self.way.connection(timeout_s)
        target = f"/{what}?{_encoded(query)}" if query else f"/{what}"
        sent = {"Content-Type": "application/json"} if body is not None else {}
        try:
            with self._reaching():
                connection.request(
                    method, target, body, {**sent, **self.way.headers(), **(headers or {})}
                )
                answer = connection.getresponse()
            with answer, self._whole():
                if answer.status != http.client.OK:
                    raise self._error(answer, query)
                yield answer
        finally:
            connection.close()

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        """Say that nobody answers, or that it is not who we trust."""
        where = self.way.where
        try:
            yield
        except ssl.SSLCertVerificationError as error:
            why = str(error.verify_message or error).rstrip(".")
            what = _ANOTHER_NAME if error.verify_code in _MISMATCHES else self.way.distrust
            raise SystemRefused(
                f"{where}: its certificate is not trusted: {why}; {what}"
            ) from error
        except ssl.SSLError as error:
            raise SystemRefused(
                f"{where}: no TLS session: {error.reason or error}; does the API speak there, "
                "and TLS (apiServer.tls)?"
            ) from error
        except http.client.HTTPException as error:
            what = f"{type(error).__name__} {error}".strip()
            raise SystemRefused(
                f"{where}: what answers there is no aggregator's API, or speaks TLS: {what}"
            ) from error
        except OSError as error:
            raise SystemRefused(
                f"no aggregator answers at {where}: {error.strerror or error}; {self.way.remedy}"
            ) from error

    @contextmanager
    def _whole(self) -> Iterator[None]:
        """Say that an answer broke off: the aggregator ended, or took too long."""
        try:
            yield
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise BrokeOff(
                f"the answer of the aggregator at {self.way.where} broke off: {error}"
            ) from error

    def _error(
        self, answer: http.client.HTTPResponse, query: Mapping[str, str] | None
    ) -> FlowvisError:
        body = answer.read(MAX_ERROR_BYTES)
        try:
            found = _refused(json.loads(body), query)
        except (ValueError, KeyError, TypeError):
            text = body.decode(errors="replace").strip() or answer.reason
            text = f"{answer.status} {text}"[:1000]
            found = Refused(f"{self.way.where}: no answer of an aggregator's API: {text}", {})
        if answer.status == MISSING and str(found).endswith(": Not Found"):  # of no such path
            found = Refused(
                f"{self.way.where}: {found}; is that aggregator older than this flowctl?",
                found.details,
            )
        if answer.status == UNAUTHENTICATED:
            found = Refused(
                f"{self.way.where}: {found}; give a token: --token-file, or FLOWVIS_TOKEN",
                found.details,
            )
        return found


class BrokeOff(SystemRefused):
    """An answer had begun, and did not come to its end."""


class ControlClient(Client):
    """The aggregator behind a control socket."""

    def __init__(self, path: Path) -> None:
        super().__init__(ControlSocket(path))


def _encoded(query: Mapping[str, str]) -> str:
    try:
        return urlencode(query)
    except UnicodeEncodeError as error:  # as Python has arguments that are no text
        raise SettingsError([f"{error.object!a}: not UTF-8"]) from error


def _lines(answer: http.client.HTTPResponse) -> Iterator[bytes]:
    """Go through the lines of an answer, without their ends.

    By `read1`: `readline` takes an answer that broke off between two chunks for one that ended.
    """
    parts: list[bytes] = []
    while piece := answer.read1(PIECE_BYTES):
        first, *others = piece.split(b"\n")
        parts.append(first)
        if sum(map(len, parts)) > MAX_LINE_BYTES:
            raise ValueError(f"a line of more than {MAX_LINE_BYTES} bytes")
        if others:
            yield b"".join(parts)
            yield from others[:-1]
            parts = [others[-1]]
    if parts and any(parts):
        yield b"".join(parts)


def _refused(document: Any, query: Mapping[str, str] | None) -> Refused:
    error = document["error"]
    return Refused(str(error["message"]), error, (query or {}).get("filter", ""))
