"""Denied and why: who was stopped on the way where, by which rule, and who got no answer."""

from tools.dashboards import variables
from tools.dashboards.chosen import COMMON
from tools.dashboards.console import explored, listed
from tools.dashboards.labels import Label, label, made
from tools.dashboards.page import Page, Row
from tools.dashboards.pages.between import DESTINATION, SOURCE
from tools.dashboards.pages.policies import VERDICTS
from tools.dashboards.panels import SHARE, Bars, Lines, Panel, Rows, Stat
from tools.dashboards.queries import Column, Ranked, Records, Series, Share, Totals

ALL = Records()
DENIED = Records("verdict = denied")
COUNT = Column("Denied", "denied")
MISSING = Column("Unanswered", "unanswered")


def _which(title: str, what: str) -> Label:
    """Return a column of the policy that denied: that of egress where it did, as it came first."""
    return made(
        title,
        f"if(egressNetworkPolicyRuleAction IN (2, 3), egressNetworkPolicy{what},"
        f" ingressNetworkPolicy{what})",
    )


POLICY = made(
    "Policy",
    "if(egressNetworkPolicyRuleAction IN (2, 3),"
    " concat('egress ', egressNetworkPolicyNamespace, '/', egressNetworkPolicyName),"
    " concat('ingress ', ingressNetworkPolicyNamespace, '/', ingressNetworkPolicyName))",
)
RULE = _which("Rule", "RuleName")


def _top(title: str, records: Records, column: Column, of: Label, name: str) -> Panel:
    return Bars(
        title=title,
        about="Connections begun, each once",
        asks=Ranked((of,), (column,), records, limit=10),
        unit="short",
        console=explored(records, column.measure, name),
    )


PAGE = Page(
    "denied",
    "Flows: denied and why",
    "Who was stopped on the way where, by which policy and rule; and who got no answer",
    [
        Row(
            "",
            [
                Stat(
                    title="Denied connections",
                    about="Dropped or rejected, each once",
                    asks=Totals((COUNT,), ALL),
                    width=6,
                    thresholds=((1, "red"),),
                    console=explored(DENIED, "denied"),
                ),
                Stat(
                    title="Share of connections",
                    about="Denied ones of all that were begun",
                    asks=Share("denied", "connections", ALL),
                    unit=SHARE,
                    width=6,
                    console=explored(ALL, "denied"),
                ),
                Stat(
                    title="Unanswered connections",
                    about="Ended without a packet back, and no policy denied them",
                    asks=Totals((MISSING,), ALL),
                    width=6,
                    thresholds=((1, "orange"),),
                    console=explored(Records("unanswered = yes"), "unanswered"),
                ),
                Stat(
                    title="Would be denied",
                    about="A policy would deny them and is not enforced",
                    asks=Totals(
                        (Column("Connections", "connections"),), Records("verdict = unenforced")
                    ),
                    width=6,
                    console=explored(Records("verdict = unenforced"), "connections"),
                ),
            ],
        ),
        Row(
            "Over time",
            [
                Lines(
                    title="Denied, by policy",
                    about="Connections begun in each interval",
                    asks=Series(COUNT, POLICY, DENIED),
                    unit="short",
                    bars=True,
                    console=explored(DENIED, "denied", "dst.policy"),
                ),
                Lines(
                    title="Unanswered, by destination",
                    about="Connections ended in each interval",
                    asks=Series(MISSING, DESTINATION, ALL),
                    unit="short",
                    bars=True,
                    console=explored(ALL, "unanswered", "dst.workload"),
                ),
            ],
        ),
        Row(
            "Who and why",
            [
                Rows(
                    title="Denied connections",
                    about="Who wanted to reach whom at which port, and the rule that decided",
                    asks=Ranked(
                        (
                            SOURCE,
                            DESTINATION,
                            label("Port", "dst.port"),
                            label("Protocol", "proto"),
                            label("Verdict", "verdict"),
                            POLICY,
                            RULE,
                        ),
                        (COUNT, Column("Records", "records")),
                        DENIED,
                        200,
                    ),
                    colors={"Verdict": VERDICTS},
                    width=24,
                    height=12,
                    console=listed(DENIED),
                ),
                _top("Top denied sources", DENIED, COUNT, SOURCE, "src.workload"),
                _top("Top denied destinations", DENIED, COUNT, DESTINATION, "dst.workload"),
                _top("Top denying rules", DENIED, COUNT, RULE, "dst.rule"),
                _top("Top unanswered destinations", ALL, MISSING, DESTINATION, "dst.workload"),
            ],
        ),
    ],
    [
        variables.store(),
        *(variables.of(each) for each in COMMON),
        variables.level(),
        variables.console(),
    ],
)
