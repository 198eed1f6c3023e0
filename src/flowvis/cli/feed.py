"""Records as one stream: those of the store, those that it does not have yet, and what comes.

The aggregator remembers the latest records that it wrote, in order; the store has what was written
some seconds ago. So where one that is remembered is found in the store, all before it are there as
well, and those after it go on from there.
"""

import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flowvis.cli import completeness
from flowvis.cli.client import BrokeOff, Client, Event, Refused
from flowvis.runtime.visible import visible

Record = Mapping[str, Any]

PAGE = 1000
REMEMBERED = 100_000  # more than is
STORED_LATER_S = 20.0  # what is written is in the store by then, if it is well
LOOK_S = 1.0
RETRIES = 6
LOST = "lost"
"""The key of what is no record: how many are missing here."""

_IDENTITY = (
    "sourceIP", "destinationIP", "sourceTransportPort", "destinationTransportPort",
    "protocolIdentifier", "flowStartSeconds", "flowEndSeconds", "flowEndReason",
    "octetTotalCount", "packetTotalCount", "reverseOctetTotalCount", "reversePacketTotalCount",
    "octetDeltaCount", "packetDeltaCount",
)  # fmt: skip
"""What tells records apart: an interval of a connection, and what was counted at its end."""
_SAME = {"clusterId": "clusterUUID"}
"""Columns of the store that have another name in what is remembered."""


def identity(record: Record) -> tuple[Any, ...]:
    """Return what tells a record from others."""
    return tuple(record[name] for name in _IDENTITY)


@dataclass(frozen=True)
class Joined:
    """Records of the store and after it, oldest first."""

    records: list[Record]
    meet: bool
    """Whether nothing can be missing between the two."""


def join(stored: Sequence[Record], remembered: Sequence[Record], *, whole: bool) -> Joined:
    """Go on from stored records with remembered ones, both oldest first.

    `whole`: nothing that matters was written before the first that is remembered.
    """
    left = Counter(map(identity, stored))
    last = -1
    for at, record in enumerate(remembered):
        found = identity(record)
        if left[found] > 0:
            left[found] -= 1
            last = at
    later = remembered[last + 1 :]
    return Joined([*stored, *later], whole or last >= 0 or not remembered)


class Feed:
    """Records that a question asks for."""

    def __init__(self, client: Client, query: Mapping[str, str], last: int) -> None:
        """`query` has from, to and filter; up to `last` records of the past, the newest."""
        self._client = client
        self._query = dict(query)
        self._last = last
        self._since_s = 0.0
        self.cut = False
        """Whether there are more in the range than were asked for."""

    def past(self) -> list[Record]:
        """Return what was, oldest first."""
        if "to" in self._query:
            return self._stored() or []
        return self._until_now(self._events())

    def follow(self) -> Iterator[Record]:
        """Go through what was and then what comes, until the aggregator ends; {LOST: n} between."""
        events = self._events()
        yield from self._until_now(events)
        for event in events:
            yield from _records(event)

    @property
    def _filter(self) -> dict[str, str]:
        return {"filter": self._query["filter"]} if "filter" in self._query else {}

    def _until_now(self, events: Iterator[Event]) -> list[Record]:
        """Return what was, up to the moment from which on there is a stream of what comes."""
        remembered: list[Record] = []
        since_s: float | None = 0.0
        for event in events:
            if event.kind == "live":
                since_s = event.data["rememberedSeconds"]
                break
            remembered += _records(event)
        stored = self._stored()
        remembered = [record for record in remembered if self._late(record)]
        whole = since_s is None or since_s > STORED_LATER_S or len(remembered) >= self._last
        records = remembered if stored is None else self._joined(stored, remembered, whole)
        self.cut = self.cut or len(records) > self._last
        return records[max(len(records) - self._last, 0) :]

    def _late(self, record: Record) -> bool:
        return bool(record["flowEndSeconds"] >= self._since_s)

    def _joined(
        self, stored: list[Record], remembered: list[Record], whole: bool
    ) -> list[Record]:
        """Join both; where they do not meet, the store is asked until it has what was remembered."""
        deadline = time.monotonic() + STORED_LATER_S
        while not (found := join(stored, remembered, whole=whole)).meet:
            if time.monotonic() > deadline:
                _say("records of the last seconds may be missing: the store does not have them yet")
                break
            time.sleep(LOOK_S)
            stored = self._stored() or []
        return found.records

    def _stored(self) -> list[Record] | None:
        """Return what the store has, oldest first; None where there is no store."""
        found: list[Record] = []
        query = {**self._query, "columns": "*"}
        document: dict[str, Any] = {}
        self.cut = False
        while len(found) < self._last:
            query["limit"] = str(min(PAGE, self._last - len(found)))
            try:
                document = self._client.get("api/v1/flows", query)
            except Refused as error:
                if error.code != "no-store":
                    raise
                _say("there is no store: only what the aggregator remembers")
                return None
            names = [column["name"] for column in document["columns"]]
            in_ms = _in_milliseconds(document["columns"])
            found += (_record(names, in_ms, row) for row in document["rows"])
            if not document["cursor"]:
                break
            query["cursor"] = document["cursor"]
        self.cut = bool(document.get("cursor"))
        self._since_s = document["answer"]["from"] / 1000
        completeness.report(document)
        return found[::-1]

    def _events(self) -> Iterator[Event]:
        """Go through the stream; where it breaks off it goes on after the last event."""
        query = {"last": str(REMEMBERED)} | self._filter
        after, tries = "", 0
        while True:
            try:
                for event in self._client.events("api/v1/stream", query, after):
                    after, tries = event.id, 0
                    yield event
            except BrokeOff as error:
                tries += 1
                if tries > RETRIES or not after:
                    raise
                _say(f"{error}; going on")
                time.sleep(min(2**tries / 4, 10))
            else:
                return


def _records(event: Event) -> Iterator[Record]:
    if event.kind == "flows":
        yield from map(_plain, event.data)
    elif event.kind == LOST:
        yield {LOST: event.data[LOST]}


def _plain(record: Record) -> Record:
    """Return a record under the names that the store has."""
    return {_SAME.get(name, name): value for name, value in record.items()}


def _in_milliseconds(columns: Sequence[Mapping[str, str]]) -> frozenset[str]:
    """Return the columns of seconds, which pages have in milliseconds as all times."""
    return frozenset(
        column["name"]
        for column in columns
        if column["type"] == "time" and not column["name"].endswith("Milliseconds")
    )


def _record(names: Sequence[str], in_ms: frozenset[str], row: Sequence[Any]) -> Record:
    return {
        name: value // 1000 if name in in_ms else value
        for name, value in zip(names, row, strict=True)
    }


def _say(text: str) -> None:
    print(f"flowctl: {visible(text)}", file=sys.stderr)
