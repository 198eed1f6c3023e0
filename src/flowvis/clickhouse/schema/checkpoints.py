"""Records as checkpoints: what is stored so that their flows can be gone on with, and asked for.

As of most numbers, what is stored of a time is how far it is from what the rest of the record lets
expect (see `formulas`); only here nobody reads it but we, so the server need not know how.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flowvis import checkpoint
from flowvis.batch import Batch, Column
from flowvis.clickhouse.schema.formulas import RATE_INTERVAL
from flowvis.clickhouse.schema.layout import TableLayout
from flowvis.clickhouse.schema.literals import literal
from flowvis.clickhouse.schema.tables import (
    INSERTED_SQL,
    PLAIN_CHECKPOINTS,
    RESIDUAL_CHECKPOINTS,
    TABLE,
    definitions,
)
from flowvis.errors import StoreError
from flowvis.fields import BY_NAME, Field, Kind, Merge, Source

_INTERVAL = "monitoringIntervalStartMilliSeconds"
_NODE_ENDS = ("flowEndSecondsFromSourceNode", "flowEndSecondsFromDestinationNode")
LASTS_S = 60  # as the active timeout is by default
_SIDES = (2, 4)
"""Bits of the state: whose side has reported."""

READ: tuple[Field, ...] = tuple(
    field
    for field in BY_NAME.values()
    if (field.stored or field.name == "flowId")
    and field.kind is not Kind.TEXT
    and (field.merge not in {Merge.DELTA, Merge.RATE, Merge.ADDED} or field.name == _INTERVAL)
    and field.source is not Source.VERDICT
)
"""The fields of a checkpoint that are read."""

_ROWS = [
    *((field.name, field.kind.dtype, field.kind.shape) for field in READ),
    (RATE_INTERVAL, np.dtype(np.uint64), ()),
    *((stored, checkpoint.COLUMNS[name], ()) for name, stored in RESIDUAL_CHECKPOINTS.items()),
    *((name, checkpoint.COLUMNS[name], ()) for name in PLAIN_CHECKPOINTS),
    (checkpoint.BASES, np.dtype(np.uint8), (checkpoint.BASES_BYTES,)),
]
ANSWER = np.dtype([(name, dtype, shape) for name, dtype, shape in _ROWS])
"""A row of the answer: its columns by name, in their order."""
_KINDS = [(name, np.dtype((dtype, shape))) for name, dtype, shape in _ROWS]

Answer = Mapping[str, Column]
"""The columns of ANSWER, each `(n,)` or `(n, width)`."""

_TUPLE = (
    "sourceIPBytes, destinationIPBytes, sourceTransportPort, destinationTransportPort,"
    " protocolIdentifier, flowId"
)
CONNECTION = f"{_TUPLE}, flowStartSeconds"
OF_TUPLE = 64
"""Rows of one tuple of a crowded answer, of the connections that began last: twice as many as are
gone on with, as a connection has a second one where the other node knows of an earlier start. A
client can use one port again each second."""
SPARE_ROWS = 100_000
"""That an answer may have beyond two for each tuple: 34 MB."""
_BEGAN = "began"


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which connections are asked for."""

    hashes: NDArray[np.uint64]
    """`flowvis.checkpoint.tuple_hashes` of their keys."""
    since_s: int
    """Records that end before this are not looked at."""
    crowded: bool = False
    """Whether of each tuple only the last connections are asked for, at most OF_TUPLE rows."""
    clusters: Sequence[str] = ()
    """The ids of the cluster whose connections they are; of any, where there are none. A store may
    have those of other clusters, between the same addresses."""

    @property
    def most_rows(self) -> int:
        """Of an answer, which is in memory as a whole."""
        return 2 * len(self.hashes) + SPARE_ROWS


class TooManyRows(StoreError):
    """An answer would have more rows than it may: less is to be asked for."""

    def __init__(self, wanted: Wanted) -> None:
        super().__init__(
            f"of {len(wanted.hashes)} tuples more than {wanted.most_rows} connections were written",
            retryable=False,
        )


def residuals(batch: Batch) -> dict[str, Column]:
    """Return the stored columns of the times and the number of a batch's records."""
    columns: dict[str, Column] = dict(batch.columns)
    found: dict[str, Column] = {}
    for name, expected in _expected(columns):
        found[RESIDUAL_CHECKPOINTS[name]] = np.asarray(columns[name] - expected)
    return found


def answer(wanted: Wanted, parts: Iterable[Sequence[Column]]) -> Answer:
    """Return the answer that came in parts, each with all columns in the order of ANSWER.

    TooManyRows where it is not whole.
    """
    columns: list[list[Column]] = [[np.zeros(0, kind)] for _, kind in _KINDS]
    for part in parts:
        for pieces, column in zip(columns, part, strict=True):
            pieces.append(column)
    if sum(map(len, columns[0])) > wanted.most_rows:
        raise TooManyRows(wanted)
    return {
        name: np.concatenate(pieces[1:] or pieces, dtype=kind.base, casting="equiv")
        for (name, kind), pieces in zip(_KINDS, columns, strict=True)
    }


def restore(answer: Answer) -> dict[str, Column]:
    """Return the fields and the columns of `flowvis.checkpoint` of an answer."""
    columns = dict(answer)
    for name, expected in _expected(columns):
        columns[name] = np.asarray(answer[RESIDUAL_CHECKPOINTS[name]] + expected)
    return columns


def _expected(columns: Mapping[str, Column]) -> Iterator[tuple[str, Column]]:
    """Yield each name, and what it is expected to be of what was yielded before.

    The first record has the interval's start for the connection's; the other node's start is about
    the same. A side was read when the interval was over, or with the other side, or else within
    the second that is known. A record comes each minute.
    """
    thousand = np.uint64(1000)
    lasted = columns["flowEndSeconds"] - columns["flowStartSeconds"]
    yield checkpoint.NUMBER, lasted // np.uint32(LASTS_S) + np.uint32(1)
    seen = [columns[checkpoint.STATE] & side != 0 for side in _SIDES]
    begun = np.where(
        columns[checkpoint.NUMBER] == 1,
        columns[_INTERVAL],
        columns["flowStartSeconds"].astype(np.uint64) * thousand,
    )
    source, destination = checkpoint.STARTS
    yield source, np.where(seen[0], begun, np.uint64(0))
    begun = np.where(seen[0], columns[source], begun)
    yield destination, np.where(seen[1], begun, np.uint64(0))
    read = columns[_INTERVAL] + columns[RATE_INTERVAL]
    for side, name in enumerate(checkpoint.ENDS):
        second = columns[_NODE_ENDS[side]].astype(np.uint64)
        expected = np.where(read // thousand == second, read, second * thousand)
        if side:
            other = columns[checkpoint.ENDS[0]]
            expected = np.where(other // thousand == second, other, expected)
        yield name, np.where(seen[side], expected, np.uint64(0))


def question(layout: TableLayout, wanted: Wanted) -> str:
    """Ask for the last record of each of the connections, as rows of ANSWER.

    The last is the one with the latest end: of a connection that was forgotten meanwhile the
    records are numbered anew. There is one row too many where an answer has no room for all.
    """
    shown = [*(field.name for field in READ), RATE_INTERVAL]
    defined = definitions(", ".join(name for name in shown if name not in _STORED_AS_BYTES))
    with_ = ", ".join(f"{sql} AS {name}" for name, sql in defined.items())
    selected = [
        *(_selected(field) for field in READ),
        RATE_INTERVAL,
        *RESIDUAL_CHECKPOINTS.values(),
        *PLAIN_CHECKPOINTS,
        f"CAST(unhex(toString({checkpoint.BASES})) AS FixedString({checkpoint.BASES_BYTES}))",
    ]
    hashes = f"unhex('{wanted.hashes.astype('<u8').tobytes().hex()}')"
    one = f"reinterpretAsUInt64(substring({hashes}, 8 * place + 1, 8))"
    chosen = f"(SELECT arrayJoin(arrayMap(place -> {one}, range({len(wanted.hashes)}))))"
    found = (
        f"WITH {with_} SELECT {', '.join(selected)}"
        f" FROM {layout.database}.{TABLE}"
        f" PREWHERE flowEndSeconds >= toDateTime({wanted.since_s}) AND {checkpoint.STATE} != 0"
        f" AND {_HASH_SQL} IN {chosen}{_of_clusters(wanted.clusters)}"
        f" ORDER BY {_END_SQL} DESC, {_NUMBER_SQL} DESC, {INSERTED_SQL} DESC"
        f" LIMIT 1 BY {CONNECTION}"
    )
    if wanted.crowded:  # it costs a tenth of the question
        found = f"SELECT * FROM ({found}) ORDER BY {_BEGAN} DESC LIMIT {OF_TUPLE} BY {_TUPLE}"
    return f"{found} LIMIT {wanted.most_rows + 1}"


def room_for(sql: str) -> dict[str, int]:
    """The settings under which a server takes a question of any length."""
    return {"max_query_size": 2 * len(sql), "max_bytes_in_set": 0, "max_rows_in_set": 0}


def _of_clusters(ids: Sequence[str]) -> str:
    return f" AND clusterUUID IN ({', '.join(map(literal, ids))})" if ids else ""


_STORED_AS_BYTES = {field.name for field in READ if field.kind is Kind.ADDRESS}


def _selected(field: Field) -> str:
    if field.kind is Kind.ADDRESS:
        return f"{field.name}Bytes"
    if field.name == "flowStartSeconds":
        return f"toUInt32({field.name}) AS {_BEGAN}"
    return f"toUInt32({field.name})" if field.kind is Kind.SECONDS else field.name


def _endpoint_sql(side: str, between: str, bit: int) -> str:
    high, low, port, _ = checkpoint.MULTIPLIERS
    translated = f"bitAnd({checkpoint.STATE}, {bit}) != 0"
    address = f"if({translated}, {between}IPBytes, {side}IPBytes)"
    number = f"if({translated}, {between}Port, {side}TransportPort)"
    words = [f"reinterpretAsUInt64(substring({address}, {first}, 8))" for first in (1, 9)]
    return f"{words[0]} * {high} + {words[1]} * {low} + toUInt64({number}) * {port}"


_NUMBER_SQL = (
    f"toUInt32({RESIDUAL_CHECKPOINTS[checkpoint.NUMBER]}"
    f" + intDiv(toUInt32(flowEndSeconds) - toUInt32(flowStartSeconds), {LASTS_S}) + 1)"
)
_END_SQL = (
    f"if(toUInt32(flowEndSeconds) > toUInt32({INSERTED_SQL}) + {checkpoint.AHEAD_S},"
    f" toUInt32({INSERTED_SQL}), toUInt32(flowEndSeconds))"
)
"""An end that was to come by far as it was committed is of a clock that was wrong."""
_HASH_SQL = (
    f"toUInt64({_endpoint_sql('source', 'proxySnat', checkpoint.CLIENT_TRANSLATED)}"
    f" + {_endpoint_sql('destination', 'destinationService', checkpoint.SERVER_TRANSLATED)}"
    f" + toUInt64(protocolIdentifier) * {checkpoint.MULTIPLIERS[3]})"
)
