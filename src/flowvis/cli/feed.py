"""Records as one stream: those of the store, those that it does not have yet, and what comes.

The aggregator remembers the latest records that it wrote; the store has what was written some
seconds ago. So the stream of what comes is opened first, with what was written in the last seconds,
then the store is asked: what was not yet in the one is in the other, and what is in both is shown
once. A record is in its place by its end, as the store has it; what comes is as it comes.
"""

import sys
import time
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from typing import Any

from flowvis.cli import completeness
from flowvis.cli.client import Client, Event, Refused, passes
from flowvis.errors import FlowvisError
from flowvis.runtime.visible import visible

Record = Mapping[str, Any]
Events = Generator[Event, None, None]

PAGE = 1000
ALL = 1_000_000  # more than is remembered
STORED_LATER_S = 20.0  # what is written is in the store by then, if it is well
LOOK_S = 1.0
RETRIES = 6
LIVE = "live"
"""The event after which records are new."""
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
"""Columns of what is remembered that the store has under a second name as well."""


def identity(record: Record) -> tuple[Any, ...]:
    """Return what tells a record from others."""
    return tuple(record[name] for name in _IDENTITY)


class Stored:
    """What the store answered, by which what is already there is known when it comes again."""

    def __init__(self, records: Sequence[Record], names: Sequence[str] = ()) -> None:
        """`records`: oldest first; `names`: the columns that a record of the store has."""
        self.records = records
        self._names = names
        self._left = Counter(map(identity, records))

    def without(self, records: Iterable[Record]) -> list[Record]:
        """Return those of some records that it does not have; each of its own is known once.

        They have the store's columns; what only the store knows of a record is None.
        """
        return [self._like(record) for record in records if not self._take(record)]

    def _like(self, record: Record) -> Record:
        if LOST in record or not self._names:
            return record
        return {name: record.get(name) for name in self._names}

    def _take(self, record: Record) -> bool:
        if LOST in record or not self._left:
            return False
        found = identity(record)
        if found not in self._left:
            return False
        self._left[found] -= 1
        if not self._left[found]:
            del self._left[found]
        return True


class Feed:
    """Records that a question asks for."""

    def __init__(
        self, client: Client, query: Mapping[str, str], last: int, *, ranged: bool = False
    ) -> None:
        """`query` has from, to and filter; up to `last` records of the past, the newest.

        `ranged`: whether somebody asked for this range, which without a store nobody knows.
        """
        self._client = client
        self._query = dict(query)
        self._last = last
        self._ranged = ranged
        self._since_s = 0.0
        self._reported = False
        self.cut = False
        """Whether there are more in the range than were asked for."""
        self.names: Sequence[str] = ()
        """The columns of records, where the store has said them."""

    def past(self) -> list[Record]:
        """Return what was, oldest first."""
        if "to" in self._query:
            stored = self._stored()
            return list(stored.records) if stored else []
        past, _, events = self._begin()
        events.close()
        return past

    def follow(self) -> Iterator[Record]:
        """Go through what was and then what comes, until the aggregator ends; {LOST: n} between."""
        past, stored, events = self._begin()
        yield from past
        for event in events:
            yield from stored.without(_records(event))
        _say("the aggregator has ended the stream")

    def _begin(self) -> tuple[list[Record], Stored, Events]:
        """Return what was, what of it was stored, and what comes from then on."""
        events = self._events({"seconds": f"{STORED_LATER_S:.0f}"})
        latest, whole_s = _until_live(events)
        stored = self._stored()
        if stored is None:
            stored, whole_s = self._remembered(), None
        latest = [record for record in latest if record["flowEndSeconds"] >= self._since_s]
        new = stored.without(latest)
        if whole_s is not None and whole_s < STORED_LATER_S:
            stored, new = self._caught_up(stored, latest, new)
        return self._newest([*stored.records, *new]), stored, events

    def _caught_up(
        self, stored: Stored, latest: Sequence[Record], new: list[Record]
    ) -> tuple[Stored, list[Record]]:
        """Ask the store until it has one of the latest, and so all that was written before it."""
        deadline = time.monotonic() + STORED_LATER_S
        while latest and len(new) == len(latest):
            if time.monotonic() > deadline:
                _say("records of the last seconds may be missing: the store does not have them yet")
                break
            time.sleep(LOOK_S)
            stored = self._stored() or stored
            new = stored.without(latest)
        return stored, new

    def _newest(self, records: Sequence[Record]) -> list[Record]:
        """Return the newest records, those that end last, oldest first."""
        ordered = sorted(records, key=lambda record: record["flowEndSeconds"])
        self.cut = self.cut or len(ordered) > self._last
        return ordered[max(len(ordered) - self._last, 0) :]

    @property
    def _filter(self) -> dict[str, str]:
        return {"filter": self._query["filter"]} if "filter" in self._query else {}

    def _remembered(self) -> Stored:
        """Ask for all that the aggregator remembers, in the place of a store."""
        lines = self._client.lines("flows", {"limit": str(ALL), **self._filter})
        return Stored([_plain(record) for record in lines])

    def _stored(self) -> Stored | None:
        """Ask the store; None where there is none."""
        found: list[Record] = []
        query = {**self._query, "columns": "*"}
        document: dict[str, Any] = {}
        names: list[str] = []
        self.cut = False
        while len(found) < self._last:
            query["limit"] = str(min(PAGE, self._last - len(found)))
            try:
                document = self._client.get("api/v1/flows", query)
            except Refused as error:
                if error.code != "no-store" or self._ranged:
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
        if not self._reported:
            # What lies before the oldest record that is shown was not asked for after all.
            since_s = found[-1]["flowEndSeconds"] if self.cut else self._since_s
            completeness.report_since(document, since_s * 1000)
            self._reported = True
        self.names = names
        return Stored(found[::-1], names)

    def _events(self, beginning: Mapping[str, str]) -> Events:
        """Go through the stream; where it breaks off it goes on after the last event.

        Nobody may answer for a while then: an aggregator that was killed begins anew.
        """
        query = {**beginning, **self._filter}
        after, tries = "", 0
        while True:
            try:
                for event in self._client.events("api/v1/stream", query, after):
                    after, tries = event.id, 0
                    yield event
            except FlowvisError as error:
                tries += 1
                if tries > RETRIES or not (after and passes(error)):
                    raise
                _say(f"{error}; going on")
                time.sleep(min(2**tries / 4, 10))
            else:
                return


def _until_live(events: Events) -> tuple[list[Record], float | None]:
    """Return what a stream begins with, and for how long back that is all; None: all there was."""
    latest: list[Record] = []
    for event in events:
        if event.kind == LIVE:
            whole_s = event.data["wholeSinceSeconds"]
            return latest, None if whole_s is None else float(whole_s)
        latest += (record for record in _records(event) if LOST not in record)
    return latest, None


def _records(event: Event) -> Iterator[Record]:
    if event.kind == "flows":
        yield from map(_plain, event.data)
    elif event.kind == LOST:
        yield {LOST: event.data[LOST]}


def _plain(record: Record) -> Record:
    """Return a record under all names that the store has for what is known of it."""
    return {**record, **{also: record[name] for name, also in _SAME.items() if name in record}}


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
