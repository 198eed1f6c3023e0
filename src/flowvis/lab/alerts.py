"""Which alerts of deploy/prometheus a fault raises, and whether a run raised these and no other.

For runs of 20 s or more, with rules whose times are a hundredth, which `python -m tools.alerts
--scale 0.01` prints.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import yaml

from flowvis.lab.prometheus import Found
from flowvis.runtime.durations import parse_duration

OURS = "Flowvis"
"""Begins the names of the alerts that are judged: others are of whoever wrote them."""


@dataclass(frozen=True, slots=True)
class Raised:
    """What a fault raises."""

    always: tuple[str, ...] = ()
    sometimes: tuple[str, ...] = ()
    """By the moments at which it happens, and how long daemons then take to be well again."""


ABSENT = "FlowvisAggregatorAbsent"
BEHIND = "FlowvisDestinationBehind"
CERTIFICATE = "FlowvisCertificateEnding"
CONFIGURATION = "FlowvisConfigurationRefused"
DISCONNECTED = "FlowvisExporterDisconnected"
DOWN = "FlowvisDestinationDown"
DROPPED = "FlowvisRecordsDropped"
FILLING = "FlowvisConntrackFilling"
FULL = "FlowvisConntrackFull"
MEMORY = "FlowvisMemoryNearLimit"
MISSED = "FlowvisConnectionsMissed"
NAMES = "FlowvisNamesStale"
RESTARTING = "FlowvisRestarting"
RISING = "FlowvisConntrackRising"
SILENT = "FlowvisExporterSilent"
SKEW = "FlowvisClockSkew"
SPOOL = "FlowvisSpoolFails"
UNPROTECTED = "FlowvisUnprotected"

APART = (SILENT, DISCONNECTED)
"""Exporter and aggregator have no session, as either of them sees it."""

# A table reads best as one.
# fmt: off
RAISED: Mapping[str, Raised] = {
    "restart-aggregator": Raised(sometimes=(ABSENT, *APART)),
    "restart-exporters": Raised(sometimes=(*APART, MISSED)),
    "api-server": Raised((NAMES,), APART),
    "expired-watch": Raised(sometimes=APART),
    "secret": Raised(sometimes=APART),
    "ca": Raised(sometimes=APART),
    "certificate-expired": Raised((CERTIFICATE,), APART),
    "flood": Raised(),
    "kill-aggregator": Raised(sometimes=(RESTARTING, ABSENT, *APART)),
    "kill-exporter": Raised(sometimes=(RESTARTING, *APART, MISSED)),
    "kill-any": Raised(sometimes=(RESTARTING, ABSENT, *APART, MISSED)),
    "terminate-any": Raised(sometimes=(RESTARTING, ABSENT, *APART, MISSED)),
    "frozen-aggregator": Raised(sometimes=(ABSENT, *APART)),
    "frozen-exporters": Raised(sometimes=(*APART, MISSED)),
    "collector-refuses": Raised(APART),
    "collector-deaf": Raised(sometimes=APART),
    "collector-stalls": Raised(sometimes=APART),
    "collector-delays": Raised(sometimes=APART),
    "collector-flaps": Raised(sometimes=APART),
    "collector-resets": Raised(sometimes=APART),
    "collector-reorders": Raised(sometimes=APART),
    "link-cut": Raised(sometimes=APART),
    "link-loss": Raised(sometimes=APART),
    "events-overflow": Raised((DROPPED, MISSED), APART),
    "conntrack-fills": Raised((FILLING, FULL, RISING)),
    "conntrack-full": Raised(),
    "syn-flood": Raised((FILLING, FULL), (RISING,)),
    "store-stops": Raised((DOWN, BEHIND)),
    "store-killed": Raised((DOWN, BEHIND)),
    "store-frozen": Raised(sometimes=(DOWN, BEHIND, *APART)),
    "store-slow": Raised(sometimes=(DOWN, BEHIND)),
    "store-resets": Raised(sometimes=(DOWN, BEHIND)),
    "store-flaps": Raised(sometimes=(DOWN, BEHIND)),
    "store-read-only": Raised((DOWN,), (BEHIND, *APART)),
    "store-errors": Raised((DOWN,), (BEHIND, *APART)),
    "store-older": Raised(sometimes=(DOWN, BEHIND)),
    "store-full": Raised((DOWN,), (BEHIND,)),
    # libfaketime sets CPU times as well, by which pages of metrics are rationed.
    "clocks": Raised(sometimes=(SKEW, ABSENT, *APART)),
    "clock-skew": Raised((SKEW,), APART),
    "corrupt-files": Raised(sometimes=(MISSED, *APART)),
    "small-tables": Raised(sometimes=(DROPPED, MISSED, ABSENT)),
    "small-memory": Raised((MEMORY,)),
    "spool-full": Raised((SPOOL, DOWN), (BEHIND, DROPPED)),
    "spool-corrupt": Raised((DROPPED,), (ABSENT, DOWN, BEHIND, *APART)),
    "bad-configuration": Raised((CONFIGURATION,)),
    "state-full": Raised((UNPROTECTED,)),
    "many-exporters": Raised(sometimes=(ABSENT, SILENT, SKEW)),  # where it is too slow
}
# fmt: on


def judge(faults: Sequence[str], found: Found, rules: str) -> Iterator[str]:
    """Yield what is wrong with the alerts that fired in a run with these faults and rules."""
    waits = _waits(rules)
    expected = [RAISED.get(name, Raised()) for name in faults]
    always = {name for one in expected for name in one.always if name in waits}
    allowed = always.union(*(one.sometimes for one in expected))
    for name in sorted(always.difference(found.alerts)):
        why = f": it waits {waits[name]:g} s, and the run was watched for {found.span_s} s"
        yield f"{name} was not raised" + (why if waits[name] > found.span_s / 2 else "")
    for name, of in found.alerts.items():
        if name.startswith(OURS) and name not in allowed:
            what = "; ".join(" ".join(labels.values()) for labels in of)
            yield f"{name} was raised ({what}), and nothing in this run should have"


def _waits(rules: str) -> dict[str, float]:
    """Return for how many seconds each alert of a file of rules waits."""
    return {
        str(rule["alert"]): parse_duration(str(rule.get("for", "0")))
        for group in yaml.safe_load(rules)["groups"]
        for rule in group["rules"]
        if "alert" in rule
    }
