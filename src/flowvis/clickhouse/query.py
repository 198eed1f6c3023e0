"""A query on its way: rows come in pieces, as they are found, and can be ended at any time."""

import json
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from flowvis.errors import StoreError

PIECE_ROWS = 500
"""Rows of a piece: what others in the process wait for at most, as each is made under the GIL."""
BLOCK_ROWS = 16_384
"""Rows that the engine makes at once, for the same reason. Each block costs a call of every
function of a statement: a quarter of these rows cost a question a seventh more CPU."""

Piece = Sequence[bytes]
"""Some rows, each a JSON array in UTF-8."""


@dataclass(frozen=True, slots=True)
class QueryLimits:
    """What one query may use; the engine enforces it, except for the answer's size."""

    memory_bytes: int = 512 << 20
    seconds: int = 60
    threads: int = 2
    answer_bytes: int = 256 << 20
    """Of all rows as JSON; then the answer is cut."""
    rows_read: int = 0
    """Of the store's tables; 0: as many as it takes."""

    def options(self, max_rows: int) -> dict[str, int | str]:
        """Return ClickHouse's settings for them, by name."""
        reading: dict[str, int | str] = (
            {"max_rows_to_read": self.rows_read, "read_overflow_mode": "throw"}
            if self.rows_read
            else {}
        )
        return reading | {
            "max_memory_usage": self.memory_bytes,
            "max_execution_time": self.seconds,
            "max_threads": self.threads,
            "max_block_size": BLOCK_ROWS,
            "max_result_rows": max_rows + 1,
            "result_overflow_mode": "break",
        }


@dataclass(frozen=True, slots=True)
class Cost:
    """What a query has made the engine read, as far as it said so."""

    rows: int = 0
    octets: int = 0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.rows + other.rows, self.octets + other.octets)


@dataclass(frozen=True, slots=True)
class Result:
    """The whole answer to a query: JSON-able rows (times as text), for the edges."""

    names: Sequence[str]
    types: Sequence[str]
    rows: Sequence[Sequence[Any]]
    truncated: bool = False
    """There were more rows than asked for."""


class Query(ABC):
    """One statement, not yet run. `pieces` blocks, in one thread; `cancel` may come from any."""

    names: Sequence[str] = ()
    """Of the columns: known with the first piece."""
    types: Sequence[str] = ()
    truncated = False
    """There was more than asked for: known at the end."""
    cost = Cost()
    """Known at the end."""

    def __init__(self, statement: str, limits: QueryLimits, max_rows: int) -> None:
        self.statement = statement
        self.limits = limits
        self.max_rows = max_rows
        self.cancelled = threading.Event()

    def pieces(self) -> Iterator[Piece]:
        """Run it. The first piece may be empty; StoreError where the engine gives up."""
        rows_left, bytes_left = self.max_rows, self.limits.answer_bytes
        found = self._found()
        try:
            for part in found:
                if self.cancelled.is_set():
                    break
                for first in range(0, len(part), PIECE_ROWS) or (0,):
                    piece = part[first : first + PIECE_ROWS]
                    kept = _fitting(piece, rows_left, bytes_left)
                    rows_left -= len(kept)
                    bytes_left -= sum(map(len, kept))
                    self.truncated = len(kept) < len(piece)
                    yield kept
                    if self.truncated:
                        return
            if self.cancelled.is_set():
                raise StoreError("the query was cancelled", retryable=False)
        finally:
            found.close()  # type: ignore[attr-defined]  # a generator, which ends the query

    def result(self) -> Result:
        """Run it and return the whole answer."""
        rows: list[Sequence[Any]] = []
        for piece in self.pieces():  # at once: a call of the parser costs as much as a short row
            rows += json.loads(b"[" + b",".join(piece) + b"]")
        return Result(self.names, self.types, rows, self.truncated)

    def cancel(self) -> None:
        """End it at the engine; again where it may not have begun when it was asked to end."""
        self.cancelled.set()
        self._cancel()

    @abstractmethod
    def _found(self) -> Iterator[Piece]:
        """Run it; set names and types before the first part. A generator, which closes all."""

    @abstractmethod
    def _cancel(self) -> None:
        """Tell the engine to end it, if it has begun."""


def _fitting(piece: Piece, rows: int, octets: int) -> Piece:
    """Return the rows that there is room for."""
    if sum(map(len, piece)) > octets:
        fitting = 0
        while (octets := octets - len(piece[fitting])) >= 0:
            fitting += 1
        piece = piece[:fitting]
    return piece[:rows]
