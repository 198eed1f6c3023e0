"""NetworkPolicy: what each policy and rule let through or stopped, and what none decided over."""

from dataclasses import replace

from tools.dashboards import console, variables
from tools.dashboards.chosen import CLUSTER, EXCLUDED, NAMESPACE, POLICY, WORKLOAD, all_of
from tools.dashboards.console import explored
from tools.dashboards.labels import Label, label, made, together
from tools.dashboards.page import Page, Row
from tools.dashboards.pages.between import DESTINATION, SOURCE, graph
from tools.dashboards.panels import OCTETS, Lines, Panel, Rows, Shares, Stat
from tools.dashboards.queries import Column, Ranked, Records, Series, Totals

CHOSEN = all_of(CLUSTER, EXCLUDED, NAMESPACE, WORKLOAD, POLICY)
DECIDED = Records("src.verdict != none or dst.verdict != none", CHOSEN)
UNCOVERED = Records("src.verdict = none and dst.verdict = none", CHOSEN)
SIDES = {"ingress": "dst", "egress": "src"}
VERDICTS = {
    "allowed": "green", "dropped": "red", "rejected": "red", "unenforced": "orange",
    "none": "text",
}  # fmt: skip
_KINDS = (
    "['K8s NetworkPolicy', 'Antrea NetworkPolicy', 'Antrea ClusterNetworkPolicy',"
    " 'ClusterNetworkPolicy']"
)


def kind(way: str) -> Label:
    """Return the kind of the policy that decided."""
    column = f"{way}NetworkPolicyType"
    return made("Kind", f"transform({column}, [1, 2, 3, 4], {_KINDS}, '')")


def _rules(way: str) -> Panel:
    side = SIDES[way]
    records = Records(f"{side}.verdict != none", CHOSEN)
    labels = (
        kind(way), label("Policy", f"{side}.policy"), label("Rule", f"{side}.rule"),
        label("Verdict", f"{side}.verdict"),
    )  # fmt: skip
    columns = (
        Column("Records", "records"), Column("Connections", "connections"),
        Column("Denied", "denied"), Column("Bytes", "octets"),
        Column("Reverse bytes", "reverseOctets"),
    )  # fmt: skip
    return Rows(
        title=f"{way.capitalize()} rules",
        about="What each rule decided over, as far as records name it",
        asks=Ranked(labels, columns, records, 200),
        units={"Bytes": OCTETS, "Reverse bytes": OCTETS},
        colors={"Verdict": VERDICTS},
        width=24,
        console=console.policies(records),
    )


def _shares(way: str) -> Panel:
    side = SIDES[way]
    records = Records(f"{side}.policy is not empty", CHOSEN)
    return Shares(
        title=f"Cumulative bytes of {way} policies",
        about="Bytes from source to destination, by the policy that decided",
        asks=Ranked((label("Policy", f"{side}.policy"),), (Column("Bytes", "octets"),), records, 24,
                    others=True),
        donut=True,
        console=explored(records, "octets", f"{side}.policy"),
    )  # fmt: skip


def _lines(way: str, *, denied: bool) -> Panel:
    side, other = SIDES[way], "src" if SIDES[way] == "dst" else "dst"
    allowed = f"{side}.verdict = allowed and {other}.verdict not in (dropped, rejected)"
    records = Records(f"{side}.verdict in (dropped, rejected)" if denied else allowed, CHOSEN)
    policy = label("Policy", f"{side}.policy")
    pair = together("", together("", SOURCE, DESTINATION), policy, ": ")
    if denied:
        return Lines(
            title=f"Connections that {way} policies denied",
            about="Begun in each interval, each once however often the client tried: source,"
            " destination and policy",
            asks=Series(Column("Denied", "denied"), replace(pair, many=False), records),
            unit="short",
            bars=True,
            console=explored(records, "denied", f"{side}.policy"),
        )
    return Lines(
        title=f"Throughput that {way} policies allowed",
        about="Source, destination and policy: the 15 largest, and all others together",
        asks=Series(Column("Throughput", "throughput"), pair, records),
        console=explored(records, "throughput", f"{side}.policy"),
    )


PAGE = Page(
    "networkpolicy",
    "Flows: NetworkPolicy",
    "What each policy and rule let through or stopped, and what no policy decided over",
    [
        Row(
            "",
            [
                Stat(
                    title="Connections under a policy",
                    about="A policy decided at one of the ends",
                    asks=Totals((Column("Connections", "connections"),), DECIDED),
                    width=6,
                    console=explored(DECIDED, "connections"),
                ),
                Stat(
                    title="Denied",
                    about="Dropped or rejected, each connection once",
                    asks=Totals((Column("Denied", "denied"),), DECIDED),
                    width=6,
                    thresholds=((1, "red"),),
                    console=explored(DECIDED, "denied"),
                ),
                Stat(
                    title="Connections without a policy",
                    about="None decided at either end",
                    asks=Totals((Column("Connections", "connections"),), UNCOVERED),
                    width=6,
                    console=explored(UNCOVERED, "connections"),
                ),
                Stat(
                    title="Bytes without a policy",
                    about="None decided at either end; both directions",
                    asks=Totals((Column("Bytes", "bothOctets"),), UNCOVERED),
                    width=6,
                    unit=OCTETS,
                    console=explored(UNCOVERED, "bothOctets"),
                ),
            ],
        ),
        Row("Rules", [_rules("ingress"), _rules("egress")]),
        Row(
            "Flows with a policy",
            [
                graph("flows with a policy", DECIDED, SOURCE, DESTINATION),
                _shares("ingress"),
                _shares("egress"),
            ],
        ),
        Row("Allowed", [_lines("ingress", denied=False), _lines("egress", denied=False)]),
        Row("Denied", [_lines("ingress", denied=True), _lines("egress", denied=True)]),
    ],
    [
        variables.store(),
        *(variables.of(each) for each in CHOSEN),
        variables.level(),
        variables.console(),
    ],
)
