"""One query of a server, on a connection of its own: its rows as JSON, within limits."""

import datetime
import json
import math
import socket
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any

from flowvis.clickhouse.native_client import NativeClient, store_errors
from flowvis.clickhouse.query import PIECE_ROWS, Cost, Piece, Query, QueryLimits


class ServerQuery(Query):
    """A query on a connection of its own; closing that ends it at the server."""

    def __init__(
        self, name: str, client: NativeClient, statement: str, limits: QueryLimits, max_rows: int
    ) -> None:
        super().__init__(statement, limits, max_rows)
        self._name = name
        self._client = client

    def _found(self) -> Iterator[Piece]:
        try:
            with store_errors(self._name):
                settings = self._permitted()
                found = self._client.execute_iter(
                    self.statement, with_column_types=True, settings=settings
                )
                columns = next(found, ())
                self.names = [name for name, _ in columns]
                self.types = [kind for _, kind in columns]
                yield ()
                while rows := [_as_json(row) for row in islice(found, PIECE_ROWS)]:
                    self._client.own.socket.done()
                    yield rows
                read = self._client.last_query.progress
                self.cost = Cost(read.rows, read.bytes)
        finally:
            self._client.disconnect()

    def _permitted(self) -> dict[str, int | str]:
        """Return the limits that the user may set, which are not tighter already.

        A user who may write is made one who only reads; one with readonly = 2 may set limits, and
        one with readonly = 1 has those of its profile.
        """
        wanted = self.limits.options(self.max_rows)
        names = ", ".join(f"'{name}'" for name in ("readonly", *wanted))
        found = self._client.execute(
            f"SELECT name, value FROM system.settings WHERE name IN ({names})"
        )
        present = dict(found)
        if present.get("readonly") == "1":
            return {}
        chosen = {
            name: value for name, value in wanted.items() if _tighter(value, present.get(name))
        }
        return chosen if present.get("readonly") == "2" else chosen | {"readonly": 1}

    def _cancel(self) -> None:
        connection = self._client.own
        with suppress(OSError, EOFError, AttributeError):  # not connected, or not any more
            # The server looks for the word more often than for the end of the connection.
            connection.send_cancel()
            connection.socket.shutdown(socket.SHUT_WR)


def _tighter(wanted: int | str, present: str | None) -> bool:
    """Whether a limit is less than the present one; 0 is none."""
    if isinstance(wanted, str) or not (present or "").isdecimal():
        return True
    return int(present or 0) == 0 or wanted < int(present or 0)


def _as_json(row: Sequence[Any]) -> bytes:
    """Write a row as a JSON array."""
    try:
        text = json.dumps(row, default=_plain, ensure_ascii=False, allow_nan=False)
    except (ValueError, TypeError):  # NaN, keys that are no texts
        text = json.dumps(_known(row), ensure_ascii=False, allow_nan=False)
    return text.encode(errors="replace")


def _plain(value: Any) -> Any:
    """Return a value that JSON knows for one that it does not."""
    if isinstance(value, bytes):
        return value.rstrip(b"\0").decode(errors="replace")
    if isinstance(value, datetime.datetime):
        return value.replace(tzinfo=None).isoformat(sep=" ")
    return str(value)


def _known(value: Any) -> Any:
    """Return a value with all of its parts as JSON has them; numbers that are none are null."""
    if isinstance(value, list | tuple):
        return [_known(item) for item in value]
    if isinstance(value, dict):
        return {str(_known(key)): _known(item) for key, item in value.items()}
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | int) else _plain(value)
