"""What is counted of records: each measure's meaning and its SQL over the columns of `flows`.

Deltas are of the whole connection (`octetDeltaCount`): what its two nodes counted is in columns of
its own and never added to them, so an octet is counted once.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from flowvis.clickhouse.schema.tables import (
    BEGAN_DENIED_SQL,
    ENDED_SQL,
    FIRST_RECORD,
    MISSED_SQL,
    end_sql,
)
from flowvis.questions.problem import QuestionError, shown, unknown

_CONNECTION_SQL = (
    "cityHash64(sourceIPBytes, destinationIPBytes, sourceTransportPort, destinationTransportPort,"
    " protocolIdentifier, icmpTypeCode, flowStartSeconds)"
)


@dataclass(frozen=True, slots=True)
class Measure:
    """A number over records."""

    name: str
    unit: str
    help: str
    aggregate: str
    """ClickHouse's aggregate function, with `If` where its last argument is a condition."""
    arguments: str = ""
    per_second: int = 0
    """What the sum is multiplied with, and then divided by the seconds of its interval."""
    of_rollups: str = ""
    """What a row of a roll-up has of it: a count, a maximum or a state; sums have their columns."""

    @property
    def additive(self) -> bool:
        """Whether the number of a whole is the sum of its parts'."""
        return self.aggregate.startswith(("sum", "count"))

    @property
    def sql(self) -> str:
        """The aggregate."""
        return f"{self.aggregate}({self.arguments})"

    @property
    def state_sql(self) -> str:
        """The aggregate of records as something that can be put together with others."""
        return self.sql if self._simple else f"{self.aggregate}State({self.arguments})"

    @property
    def rolled(self) -> str:
        """What a row of a roll-up has of it; "": only records tell."""
        return self.of_rollups or (self.arguments if self.aggregate == "sum" else "")

    @property
    def rolled_sql(self) -> str:
        """The same as `state_sql`, of rows of a roll-up."""
        if self.additive:  # one after the other, as projections have them
            return " + ".join(f"sum({column})" for column in self.rolled.split(" + "))
        merged = self.merged_sql(self.rolled)
        return merged if self._simple else merged.replace("Merge(", "MergeState(")

    def merged_sql(self, column: str) -> str:
        """Return the aggregate of a column of such."""
        if self.additive:
            return f"sum({column})"
        return f"max({column})" if self._simple else f"{self.aggregate}Merge({column})"

    @property
    def _simple(self) -> bool:
        """Whether the aggregate is its own state."""
        return self.additive or self.aggregate == "max"

    def of(self, value: float | None, seconds: int) -> int | float:
        """Return the number that people see of what the store found in so many seconds."""
        found = value or 0
        return found * self.per_second / seconds if self.per_second else found


MEASURES: tuple[Measure, ...] = (
    Measure(
        "octets", "octets", "Bytes of IP packets from source to destination",
        "sum", "octetDeltaCount",
    ),
    Measure(
        "reverseOctets", "octets", "Bytes of IP packets from destination to source",
        "sum", "reverseOctetDeltaCount",
    ),
    Measure(
        "bothOctets", "octets", "Bytes of IP packets in both directions",
        "sum", "octetDeltaCount + reverseOctetDeltaCount",
    ),
    Measure(
        "packets", "packets", "Packets from source to destination", "sum", "packetDeltaCount",
    ),
    Measure(
        "reversePackets", "packets", "Packets from destination to source",
        "sum", "reversePacketDeltaCount",
    ),
    Measure(
        "connections", "connections",
        "Connections begun: those whose first record is of the range; denied ones too",
        "countIf", FIRST_RECORD, of_rollups="connections",
    ),
    Measure(
        "ended", "connections", "Connections whose end was reported (flowEndReason 3)",
        "countIf", ENDED_SQL, of_rollups="ended",
    ),
    Measure(
        "live", "connections", "Connections that any record is of: begun, going on or ended",
        "uniqExact", _CONNECTION_SQL,
    ),
    Measure(
        "denied", "connections",
        "Connections begun that a policy denied (dropped or rejected), each once however often"
        " the client tried",
        "countIf", BEGAN_DENIED_SQL, of_rollups="denied",
    ),
    Measure(
        "unanswered", "connections",
        "Connections that ended without any packet back, not counting those that a policy denied",
        "countIf", MISSED_SQL, of_rollups="unanswered",
    ),
    Measure(
        "throughput", "bit/s", "Mean throughput from source to destination over the interval",
        "sum", "octetDeltaCount", per_second=8,
    ),
    Measure(
        "reverseThroughput", "bit/s",
        "Mean throughput from destination to source over the interval",
        "sum", "reverseOctetDeltaCount", per_second=8,
    ),
    Measure(
        "peakThroughput", "bit/s",
        "Highest throughput of a single connection from source to destination over an interval of"
        " its records",
        "max", "throughput", of_rollups="peakThroughput",
    ),
    Measure(
        "sources", "endpoints", "Distinct sources: Pods, and addresses of what is no Pod",
        "uniqExact", end_sql("source"), of_rollups="sources",
    ),
    Measure(
        "destinations", "endpoints", "Distinct destinations: Pods, and addresses of what is no Pod",
        "uniqExact", end_sql("destination"), of_rollups="destinations",
    ),
    Measure("records", "records", "Flow records", "count", of_rollups="records"),
)  # fmt: skip

BY_NAME: dict[str, Measure] = {measure.name: measure for measure in MEASURES}

DEFAULT = "octets"
MAX_MEASURES = 8


def parse_measures(text: str) -> tuple[Measure, ...]:
    """Read names with commas between; QuestionError names an unknown one."""
    names = [name.strip() for name in (text or DEFAULT).split(",")]
    if len(names) > MAX_MEASURES or len(set(names)) < len(names):
        raise QuestionError(
            "bad-query", f"measure {shown(text)}: at most {MAX_MEASURES}, each once"
        )
    for name in names:
        if name not in BY_NAME:
            raise unknown("measure", name, BY_NAME, ", ".join(BY_NAME))
    return tuple(BY_NAME[name] for name in names)


def numbers(
    measures: Sequence[Measure], values: Sequence[int | float | None], seconds: int
) -> list[int | float]:
    """Return the measures' numbers of what the store found in so many seconds."""
    return [measure.of(value, seconds) for measure, value in zip(measures, values, strict=True)]


def documentation() -> str:
    """Return the measures as a Markdown table."""
    lines = ["| Measure | Unit | What | SQL over `flow_records` |", "|---|---|---|---|"]
    for measure in MEASURES:
        rate = f" * {measure.per_second} / seconds" if measure.per_second else ""
        sql = f"{measure.sql}{rate}".replace("|", "\\|")
        lines.append(f"| `{measure.name}` | {measure.unit} | {measure.help} | `{sql}` |")
    return "\n".join(lines) + "\n"
