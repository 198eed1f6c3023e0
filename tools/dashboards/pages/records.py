"""Flow records: every record with all of its columns, as far back as records are kept."""

from flowvis.clickhouse.schema.tables import FLOWS, FLOWS_COLUMNS, ORDER
from flowvis.fields import FLOW_TYPES, PROTOCOLS
from flowvis.filters.attributes import POLICY_KINDS
from flowvis.filters.vocabulary import ACTIONS, END_REASONS
from tools.dashboards import variables
from tools.dashboards.chosen import COMMON
from tools.dashboards.console import listed
from tools.dashboards.page import Page, Row
from tools.dashboards.panels import OCTETS, RATE, Lines, Rows, Stat
from tools.dashboards.queries import Records, Written

ALL = Records()
LIMIT = "rows"
_WHERE = "\n  AND ".join(
    ["flowEndSeconds >= $__fromTime", "flowEndSeconds < $__toTime", *ALL.conditions]
)
_EVERY = "greatest($__interval_s, 60)"

COUNT = Written(f"SELECT count() AS `Flow records`\nFROM {FLOWS}\nWHERE {_WHERE}")
OVER_TIME = Written(
    f"SELECT toDateTime(intDiv(toUInt32(flowEndSeconds), {_EVERY}) * {_EVERY}) AS time,"
    f" 'Records' AS series, count() AS Value\nFROM {FLOWS}\nWHERE {_WHERE}\n"
    "GROUP BY time\nORDER BY time"
)
NEWEST = Written(
    f"SELECT {', '.join(FLOWS_COLUMNS)}\nFROM {FLOWS}\nWHERE {_WHERE}\n"
    # By hour first, as they are stored: so the newest hours are read, whatever the range.
    f"ORDER BY {ORDER[0]} DESC, flowEndSeconds DESC\nLIMIT ${{{LIMIT}}}"
)


def _units() -> dict[str, str]:
    found = {}
    for name in FLOWS_COLUMNS:
        if "ctet" in name:
            found[name] = OCTETS
        elif "hroughput" in name:
            found[name] = RATE
        elif name.endswith("MilliSeconds"):
            found[name] = "dateTimeAsIso"
    return found


def _texts(known: dict[str, int]) -> dict[int, str]:
    return {int(value): name for name, value in known.items() if name}


MEANINGS = {
    "flowType": _texts(FLOW_TYPES),
    "protocolIdentifier": _texts(PROTOCOLS),
    "flowEndReason": _texts(END_REASONS),
    **{
        f"{way}NetworkPolicy{what}": {0: "none", **_texts(known)}
        for way in ("ingress", "egress")
        for what, known in (("RuleAction", ACTIONS), ("Type", POLICY_KINDS))
    },
}
NAMES = {
    "timeInserted": "insert time",
    "flowStartSeconds": "start time",
    "flowEndSeconds": "end time",
    "flowEndSecondsFromSourceNode": "end time, by the source",
    "flowEndSecondsFromDestinationNode": "end time, by the destination",
    "packetDeltaCount": "packets since the last record",
    "octetDeltaCount": "bytes since the last record",
    "throughputFromSourceNode": "throughput, by the source",
    "throughputFromDestinationNode": "throughput, by the destination",
    "reverseThroughputFromSourceNode": "reverse throughput, by the source",
    "reverseThroughputFromDestinationNode": "reverse throughput, by the destination",
}

PAGE = Page(
    "flow-records",
    "Flows: flow records",
    "Every record with all of its columns, as far back as records are kept; filter by any column",
    [
        Row(
            "",
            [
                Stat(
                    title="Flow records count",
                    about="Records of the range",
                    asks=COUNT,
                    width=6,
                    height=6,
                    console=listed(ALL),
                ),
                Lines(
                    title="Flow records count over time",
                    about="Records in each interval",
                    written=OVER_TIME,
                    unit="short",
                    bars=True,
                    stacked=False,
                    width=18,
                    height=6,
                    console=listed(ALL),
                ),
                Rows(
                    title="Flow records table",
                    about="The newest first",
                    asks=NEWEST,
                    width=24,
                    height=20,
                    units=_units(),
                    mapped=MEANINGS,
                    names=NAMES,
                    console=listed(ALL),
                ),
            ],
        ),
    ],
    [
        variables.store(),
        *(variables.of(each) for each in COMMON),
        variables.limit(LIMIT, (100, 1000, 10_000), 1000),
        *variables.ad_hoc(f"default.{FLOWS}"),
        variables.console(),
    ],
)
