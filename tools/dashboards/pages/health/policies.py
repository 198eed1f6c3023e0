"""NetworkPolicy: what agents have of policies, and what was hit: by the store, else by the log."""

from collections.abc import Iterator

from tools.dashboards import antrea, variables
from tools.dashboards.chosen import COMMON
from tools.dashboards.console import explored
from tools.dashboards.labels import Label, label
from tools.dashboards.page import Page, Row
from tools.dashboards.pages import denied
from tools.dashboards.pages.between import DESTINATION, SOURCE
from tools.dashboards.pages.health.lines import INTERVAL, RANGE
from tools.dashboards.pages.policies import VERDICTS
from tools.dashboards.panels import (
    OCTETS,
    RATE,
    Bars,
    Gauges,
    Lines,
    Logs,
    Panel,
    Rows,
    Shares,
    Stat,
)
from tools.dashboards.queries import Column, Ranked, Records, Series
from tools.dashboards.sources import Log, Metric
from tools.dashboards.streams import NODE, Stream, chosen

DECIDED = Records("verdict != none")
ALLOWED = Records("verdict = allowed")
_VERDICT = label("Verdict", "verdict")
_SERVICES = (label("Port", "dst.port"), label("Protocol", "proto"))

ACTION = "action"
_ADDRESSES = '| sourceIP=~".*$source.*" | destinationIP=~".*$destination.*"'
_SENTENCE = (
    "{{.nodename}} {{.action}} by {{.antreaNativePolicyReference}} {{.ruleName}}:"
    " {{.protocol}} {{.sourceIP}} {{.sourcePort}} to {{.destinationIP}} {{.destinationPort}},"
    " {{.packetCount}} packets of {{.packetLength}} bytes"
)
_NAMED = {"Allowed": "Allow", "Denied": "Drop|Reject"}
"""The actions that hits are of, as the log calls them."""
_RULE = "antreaNativePolicyReference, ruleName"


def _lines_of(action: str) -> str:
    """Return LogQL for lines of an action that are about the addresses that are chosen."""
    return f"{chosen(Stream.AUDIT, **{NODE: '$nodename', ACTION: action})} | json {_ADDRESSES}"


def _packets(by: str, over: str, action: str = "$action") -> str:
    """Return LogQL for how many packets were logged: a line may stand for several."""
    return f"sum by ({by}) (sum_over_time({_lines_of(action)} | unwrap packetCount {over}))"


def _by_log() -> Iterator[Panel]:
    octets = (
        f'{_lines_of("$action")} | label_format octets="{{{{mul .packetLength .packetCount}}}}"'
        f" | unwrap octets {INTERVAL}"
    )
    yield Lines(
        title="Bytes of logged packets by action",
        about="In each interval, of packets that rules with logging hit",
        of=(Log(f"sum by (action) (sum_over_time({octets}))", "{{action}}"),),
        unit=OCTETS,
        bars=True,
    )
    yield Gauges(
        title="Logged packets by action",
        about="Within the range: a line may stand for several packets",
        of=(Log(_packets(ACTION, RANGE), instant=True),),
    )
    yield Logs(
        title="Audit log",
        about="What Antrea's agents wrote of packets that rules with logging hit",
        of=(Log(f"{_lines_of('$action')} | line_format `{_SENTENCE}`"),),
    )


def _tops_by_log(which: str) -> Iterator[Panel]:
    action = _NAMED[which]
    for what, by, limit in (
        ("rules", _RULE, 10),
        ("destinations", "destinationIP", 5),
        ("sources", "sourceIP", 5),
    ):
        yield Bars(
            title=f"{which}: top {what} of the log",
            about="By logged packets",
            of=(Log(f"topk({limit}, {_packets(by, RANGE, action)})", instant=True),),
            unit="short",
            width=8,
        )
    services = _packets("destinationPort, protocol", RANGE, action)
    yield Shares(
        title=f"{which}: services of the log",
        about="By logged packets: the 20 ports and protocols with most, as parts of these",
        of=(Log(f"topk(20, {services})", instant=True),),
        unit="short",
    )
    pairs = _packets("protocol, sourceIP, destinationIP, destinationPort", RANGE, action)
    yield Bars(
        title=f"{which}: top conversations of the log",
        about="By logged packets",
        of=(Log(f"topk(5, {pairs})", instant=True),),
        unit="short",
    )


def _by_store() -> Iterator[Panel]:
    yield Lines(
        title="Throughput by verdict",
        about="Both directions, of connections that a policy decided over",
        asks=Series(Column("Throughput", "bothOctets", per_second=8), _VERDICT, DECIDED),
        unit=RATE,
        console=explored(DECIDED, "bothOctets", "verdict"),
    )
    yield Lines(
        title="Hits by verdict",
        about="Connections begun in each interval, each once",
        asks=Series(Column("Connections", "connections"), _VERDICT, DECIDED),
        unit="short",
        bars=True,
        console=explored(DECIDED, "connections", "verdict"),
    )


def _tops_by_store(which: str, records: Records, column: Column, rule: Label) -> Iterator[Panel]:
    for what, of, name in (
        ("rules", rule, "dst.rule"),
        ("destinations", DESTINATION, "dst.workload"),
        ("sources", SOURCE, "src.workload"),
    ):
        yield Bars(
            title=f"{which}: top {what}",
            about="Connections begun, each once",
            asks=Ranked((of,), (column,), records, limit=10),
            unit="short",
            width=8,
            console=explored(records, column.measure, name),
        )
    yield Shares(
        title=f"{which}: services",
        about="Connections begun, by port and protocol",
        asks=Ranked(_SERVICES, (column,), records, 20, others=True),
        unit="short",
        console=explored(records, column.measure, "dst.port,proto"),
    )
    yield Rows(
        title=f"{which}: top conversations",
        about="Who reached, or wanted to reach, whom at which port",
        asks=Ranked((SOURCE, DESTINATION, *_SERVICES, _VERDICT), (column,), records, 50),
        colors={"Verdict": VERDICTS},
        console=explored(records, column.measure, "src.workload,dst.workload"),
    )


def _number(title: str, about: str, series: antrea.Series) -> Panel:
    return Stat(
        title=title,
        about=about,
        of=(Metric(f"sum({series.of()})", instant=True),),
        width=6,
        height=6,
    )


PAGE = Page(
    "health-policies",
    "Health: NetworkPolicy and logs",
    "How many policies and rules agents have, and what was hit: by the store, and by Antrea's log"
    " where there is none",
    [
        Row(
            "",
            [
                Stat(
                    title="Policies by instance",
                    about="That each of Antrea's agents has",
                    of=(Metric(f"sum by (instance) ({antrea.POLICIES.of()})", instant=True),),
                    each=True,
                    width=12,
                    height=6,
                ),
                _number("Egress rules", "Of all agents together", antrea.EGRESS_RULES),
                _number("Ingress rules", "Of all agents together", antrea.INGRESS_RULES),
                Lines(
                    title="Denied connections by instance",
                    about="That agents and our exporters keep track of now",
                    of=(Metric(antrea.DENIED.of(), "{{job}} {{instance}}"),),
                    unit="short",
                    stacked=False,
                    width=24,
                    height=7,
                ),
            ],
        ),
        Row("Hits, from the store", list(_by_store())),
        Row(
            "Allowed, from the store",
            list(
                _tops_by_store(
                    "Allowed",
                    ALLOWED,
                    Column("Connections", "connections"),
                    label("Rule", "dst.rule"),
                )
            ),
        ),
        Row(
            "Denied, from the store",
            list(_tops_by_store("Denied", denied.DENIED, denied.COUNT, denied.RULE)),
        ),
        Row("Hits, from Antrea's audit log", list(_by_log()), closed=True),
        Row("Allowed, from Antrea's audit log", list(_tops_by_log("Allowed")), closed=True),
        Row("Denied, from Antrea's audit log", list(_tops_by_log("Denied")), closed=True),
    ],
    [
        variables.store(),
        variables.metrics(),
        variables.logs(),
        variables.instance(
            antrea.POLICIES.name,
            antrea.DENIED.name,
            label="Instance",
            description="Antrea's agents and our exporters",
        ),
        *(variables.of(each) for each in COMMON),
        variables.level(),
        variables.of_lines("nodename", "Node of the log", NODE, Stream.AUDIT),
        variables.of_lines(ACTION, "Action of the log", ACTION, Stream.AUDIT),
        variables.text("source", "Source of the log", "A part of the address, or an expression"),
        variables.text(
            "destination", "Destination of the log", "A part of the address, or an expression"
        ),
        variables.console(),
    ],
)
