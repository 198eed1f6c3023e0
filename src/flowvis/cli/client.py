"""Asks a running aggregator over its control socket."""

import http.client
import json
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from flowvis.aggregator.api.control import check_owner
from flowvis.errors import FlowvisError, SystemRefused

TIMEOUT_S = 300  # a query may take its time; a stream waits for ever


class Refused(FlowvisError):
    """The aggregator answered with an error."""


class _ControlConnection(http.client.HTTPConnection):
    """HTTP over a UNIX socket."""

    def __init__(self, path: Path, timeout: float | None) -> None:
        super().__init__("flow-aggregator", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class ControlClient:
    """One aggregator."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def get(self, what: str, query: Mapping[str, str] | None = None) -> Any:
        """Return the JSON of a GET."""
        return self._document("GET", what, query, None)

    def post(self, what: str, body: Mapping[str, Any]) -> Any:
        """Return the JSON of a POST."""
        return self._document("POST", what, None, json.dumps(body).encode())

    def lines(self, what: str, query: Mapping[str, str] | None = None) -> Iterator[Any]:
        """Go through JSON lines as they come."""
        with self._ask("GET", what, query, None, None) as answer, _whole(self._path):
            for line in answer:
                yield json.loads(line)

    def _document(
        self, method: str, what: str, query: Mapping[str, str] | None, body: bytes | None
    ) -> Any:
        with self._ask(method, what, query, body, TIMEOUT_S) as answer, _whole(self._path):
            document = json.load(answer)
        if "error" in document:
            raise Refused(_message(document))
        return document

    def _ask(
        self,
        method: str,
        what: str,
        query: Mapping[str, str] | None,
        body: bytes | None,
        timeout: float | None,
    ) -> http.client.HTTPResponse:
        connection = _ControlConnection(self._path, timeout)
        target = f"/{what}?{urlencode(query)}" if query else f"/{what}"
        try:
            check_owner(self._path)
            headers = {"Content-Type": "application/json", "Connection": "close"}
            connection.request(method, target, body, headers)
            answer = connection.getresponse()
        except OSError as error:
            connection.close()
            raise SystemRefused(
                f"no aggregator answers at {self._path}: {error.strerror or error}; is it running, "
                "and is this its controlSocket? (name it with --socket)"
            ) from error
        if answer.status != http.client.OK:
            with answer:
                raise Refused(_error(answer.read()))
        return answer


@contextmanager
def _whole(path: Path) -> Iterator[None]:
    """Say that an answer broke off: the aggregator ended, or took too long."""
    try:
        yield
    except (OSError, http.client.HTTPException, json.JSONDecodeError) as error:
        raise SystemRefused(f"the answer of the aggregator at {path} broke off: {error}") from error


def _error(body: bytes) -> str:
    try:
        return _message(json.loads(body))
    except (ValueError, KeyError, TypeError):
        return body.decode(errors="replace")


def _message(document: Any) -> str:
    return str(document["error"]["message"])
