"""What an answer lacks, for programs and in words."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from flowvis.clickhouse.schema.books import What
from flowvis.questions.times import TimeRange

MAX_MISSING = 100
"""Named in an answer; the rest is put together."""


@dataclass(frozen=True, slots=True)
class Missing:
    """Something that an answer lacks."""

    stage: str
    reason: str
    records: int | None
    """None where nobody can say how many."""
    from_ms: int
    to_ms: int
    text: str
    """In a sentence without an end, for people."""
    node: str = ""
    cluster: str = ""
    """Where there are several."""

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "cluster": self.cluster or None,
            "node": self.node or None,
            "stage": self.stage,
            "reason": self.reason,
            "records": self.records,
            "from": self.from_ms,
            "to": self.to_ms,
            "text": self.text,
        }


@dataclass(frozen=True, slots=True)
class Completeness:
    """What is missing from a range, and what else is to be known of it."""

    missing: Sequence[Missing] = ()
    notes: Sequence[str] = ()

    def with_more(self, other: "Completeness") -> "Completeness":
        """Return what is said of another range as well."""
        notes = dict.fromkeys([*self.notes, *other.notes])
        return Completeness([*self.missing, *other.missing], list(notes))

    def without_nodes(self) -> "Completeness":
        """Return the same for who may not know of nodes: their names are left out."""
        together: dict[tuple[str, str, str, int], Missing] = {}
        for number, each in enumerate(self.missing, 1):
            known = each.cluster, each.stage, each.reason, 0 if each.node else number
            plain = replace(each, node="", text=of_node("a node", each)) if each.node else each
            before = together.get(known)
            if before is not None:
                plain = replace(
                    plain,
                    records=None
                    if plain.records is None or before.records is None
                    else plain.records + before.records,
                    from_ms=min(plain.from_ms, before.from_ms),
                    to_ms=max(plain.to_ms, before.to_ms),
                )
                plain = replace(plain, text=of_node("some nodes", plain))
            together[known] = plain
        return Completeness(list(together.values()), self.notes)

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        left = len(self.missing) - MAX_MISSING
        more = [f"{left} more of what is missing is not named here"] if left > 0 else []
        return {
            "complete": not self.missing,
            "missing": [each.as_dict() for each in self.missing[:MAX_MISSING]],
            "notes": [*self.notes, *more],
        }


def of_cluster(cluster: str) -> str:
    """Return the words that name a cluster; none for ""."""
    return f" of cluster {cluster}" if cluster else ""


def of_node(who: str, missing: Missing, seconds: int = 0) -> str:
    """Return the sentence of what a node lacks."""
    who += of_cluster(missing.cluster)
    if missing.reason == What.LOST:
        return f"{missing.records} records of {who} never came, by the sequence numbers"
    return f"{who} had no session" + (f" for {seconds} s" if seconds else "")


def without_books(gap: TimeRange, cluster: str = "") -> Missing:
    """Say that there are no books of a time: of a cluster, where there are several."""
    text = f"no aggregator{of_cluster(cluster)} kept books for {gap.seconds} s"
    return Missing("aggregator", "no-books", None, gap.from_ms, gap.to_ms, text, cluster=cluster)
