"""How long a run waits for the truth: as long as sums change, or records are on their way.

On a busy machine a store may take nothing for long. What is still with a daemon then is not lost,
and no book names it: it is the run that has not waited.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from prometheus_client.parser import text_string_to_metric_families

STILL_S = 15.0
"""Without a change, and nobody has anything: nothing more will come."""
STUCK_S = 120.0
"""Without a change, though somebody has records: halves wait for 90 s for their other halves."""
LONGEST_S = 600.0

HELD = "flowvis_ledger_held_records"
ON_THE_WAY = ("records", "collector", "correlator", "clickhouse")
"""The stages whose records are to come to the store."""
CONNECTED = "flowvis_exporter_client_connected"
AWAY = "connections, without a session"


def on_the_way(metrics: str) -> dict[str, int]:
    """Return what a daemon has for the store, from what its status port says: records, by stage.

    An exporter without a session leaves its connections where they are until it has one: how many
    of them there are is all that is known.
    """
    held: dict[str, int] = {}
    connected = 1.0
    for family in text_string_to_metric_families(metrics):
        for sample in family.samples:
            if sample.name == HELD:
                held[sample.labels["stage"]] = int(sample.value)
            elif sample.name == CONNECTED:
                connected = sample.value
    found = {stage: held[stage] for stage in ON_THE_WAY if held.get(stage)}
    if not connected and (away := held.get("connections", 0) + held.get("denied connections", 0)):
        found[AWAY] = away
    return found


@dataclass
class Recovery:
    """From the end of the traffic on; times are a monotonic clock's, in seconds."""

    began_s: float
    missing: int | None = None
    """How many connections' sums in the store are not the truth; None: it has never said so."""
    waiting: Mapping[str, int] = field(default_factory=dict)
    """What is on the way to the store, by daemon and stage."""
    _changed_s: float = field(init=False)

    def __post_init__(self) -> None:
        """Begin with nothing known."""
        self._changed_s = self.began_s

    def look(self, missing: int | None, waiting: Mapping[str, int], now_s: float) -> bool:
        """Note what there is now; return whether it is worth to look again.

        `missing` is None where the store does not say.
        """
        self.waiting = waiting
        if missing is not None and missing != self.missing:
            self.missing, self._changed_s = missing, now_s
        still_s = STUCK_S if waiting else STILL_S
        return (
            self.missing != 0
            and now_s - self._changed_s < still_s
            and now_s - self.began_s < LONGEST_S
        )
