"""The reference reader of Open vSwitch's list of connections: a line each, to columns.

A line is a protocol's name and `key=value`, separated by commas; the values of some keys are such a
list themselves, in parentheses.
"""

import ipaddress
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from flowvis.batch import V4_MAPPED
from flowvis.native.contract.conntrack import DUMP, NO_TCP_STATE, RECORD
from flowvis.native.contract.dpctl import (
    ENDPOINT_STATES,
    LAST_YEAR,
    MAX_LINE,
    PROTOCOLS,
    STATUS,
    TCP_STATE,
)
from flowvis.native.reference.conntrack import _ABSENT, EntryDecoder, MalformedEntry, Value

_TCP = 6
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TIME = re.compile(r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?", re.ASCII)
_NUMBERS = {
    ("orig", "sport"): "source_port",
    ("orig", "dport"): "destination_port",
    ("orig", "id"): "icmp_id",
    ("orig", "type"): "icmp_type",
    ("orig", "code"): "icmp_code",
    ("orig", "packets"): "packets",
    ("orig", "bytes"): "octets",
    ("reply", "sport"): "reply_source_port",
    ("reply", "dport"): "reply_destination_port",
    ("reply", "packets"): "reverse_packets",
    ("reply", "bytes"): "reverse_octets",
    ("", "id"): "id",
    ("", "zone"): "zone",
    ("", "timeout"): "timeout",
    ("", "mark"): "mark",
}
_ADDRESSES = {
    ("orig", "src"): "source",
    ("orig", "dst"): "destination",
    ("reply", "src"): "reply_source",
    ("reply", "dst"): "reply_destination",
}
_TIMES = {("", "start"): "start_ns", ("", "stop"): "stop_ns"}
_NAMELESS = "("  # a place that no pair that is read has
_STATES = ("state", "state_orig", "state_reply")


class LineDecoder(EntryDecoder):
    """Gathers entries out of lines of text.

    A line that is longer than MAX_LINE, or lacks an address, counts as malformed and is skipped.
    """

    def feed_lines(self, data: bytes) -> None:
        """Read lines; the last one may lack its end."""
        for line in data.split(b"\n"):
            if line:
                self._add_line(line)

    def _add_line(self, line: bytes) -> None:
        try:
            row = _entry(line)
        except MalformedEntry:
            self.malformed += 1
            return
        self._keep(row)


def _entry(line: bytes) -> dict[str, Value]:
    if len(line) > MAX_LINE:
        raise MalformedEntry
    text = line.decode("latin-1")
    name, _, rest = text.partition(",")
    found: dict[str, Value] = {"protocol": _protocol(name)}
    states: dict[str, int] = {}
    for place, key, value in _pairs(rest):
        if (column := _NUMBERS.get((place, key))) is not None:
            found[column] = _number(value, column)
        elif (column := _ADDRESSES.get((place, key))) is not None:
            found[column] = _address(value)
        elif (column := _TIMES.get((place, key))) is not None:
            found[column] = _time(value)
        elif (place, key) == ("", "status"):
            found["status"] = sum(1 << STATUS.index(w) for w in set(value.split("|")) & set(STATUS))
        elif (place, key) == ("", "labels"):
            found["labels"] = _labels(value)
        elif place == "protoinfo" and key in _STATES and value in ENDPOINT_STATES:
            states[key] = ENDPOINT_STATES.index(value)
    if not found.keys() >= set(_ADDRESSES.values()):
        raise MalformedEntry
    if found["protocol"] == _TCP and states:
        either = states.get("state", 0)
        source = states.get("state_orig", either)
        found["tcp_state"] = int(TCP_STATE[source, states.get("state_reply", either)])
    family = 2 if bytes(found["source"]).startswith(V4_MAPPED) else 10
    more = {"family": family, "event": DUMP, "uncounted": int("packets" not in found)}
    return _ABSENT | {"tcp_state": NO_TCP_STATE} | found | more


def _pairs(text: str) -> Iterator[tuple[str, str, str]]:
    """Where a pair is ("" outside of all parentheses), its key and its value."""
    place = ""
    for part in re.finditer(r"([^,()=]*)(?:=([^,()]*))?([,()]|$)", text):
        key, value, end = part.groups()
        if end == "(":
            if place:
                raise MalformedEntry
            place = key or _NAMELESS
            continue
        if key and value is not None:
            yield place, key, value
        if end == ")":
            place = ""
    if place:
        raise MalformedEntry


def _protocol(name: str) -> int:
    if name in PROTOCOLS:
        return PROTOCOLS[name]
    return _whole(name, 8)


def _whole(text: str, bits: int) -> int:
    if not (0 < len(text) <= 20 and text.isascii() and text.isdigit()) or int(text) >> bits:
        raise MalformedEntry
    return int(text)


def _number(text: str, column: str) -> int:
    return _whole(text, 8 * RECORD[column].itemsize)


def _address(text: str) -> bytes:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        raise MalformedEntry from None
    if getattr(address, "scope_id", None) is not None:
        raise MalformedEntry
    return V4_MAPPED + address.packed if address.version == 4 else address.packed


def _labels(text: str) -> bytes:
    if not re.fullmatch(r"0x[0-9a-fA-F]{1,32}", text, re.ASCII):
        raise MalformedEntry
    return int(text, 16).to_bytes(16, "little")


def _time(text: str) -> int:
    if not (matched := _TIME.fullmatch(text)):
        raise MalformedEntry
    *whole, fraction = matched.groups()
    year, month, day, hour, minute, second = map(int, whole)
    try:
        moment = datetime(year, month, day, hour, minute, second, tzinfo=UTC)
    except ValueError:
        raise MalformedEntry from None
    if not _EPOCH.year <= year <= LAST_YEAR:
        raise MalformedEntry
    return (moment - _EPOCH) // timedelta(seconds=1) * 10**9 + int((fraction or "").ljust(9, "0"))
