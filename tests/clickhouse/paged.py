"""Stores with pages of several clusters, and what they lack."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from flowvis.clickhouse.store import Store

from .conftest import admin

T0 = 1_790_000_000
DAY = 1440
Minutes = Mapping[str, Iterable[int]]
"""By cluster the minutes since T0 that have a page, which ends with it; "": of an older program."""


@dataclass(frozen=True)
class Paged:
    """Which pages there are, what is asked, and what of it no cluster's books are of."""

    minutes: Minutes
    without: tuple[tuple[str, int, int], ...] = ()
    span: tuple[int, int] = (0, 30)


_LONG = range(-200, 31)
CASES: dict[str, Paged] = {
    "both are there": Paged({"east": _LONG, "west": _LONG}),
    "one dies": Paged({"east": _LONG, "west": range(-200, 11)}, (("west", 10, 30),)),
    "one died before": Paged(
        {"east": _LONG, "west": range(-200, 11)}, (("west", 20, 30),), (20, 30)
    ),
    "one died days ago": Paged(
        {"east": _LONG, "west": range(-6 * DAY - 240, -6 * DAY)}, (("west", 0, 30),)
    ),
    "one died more than a week ago": Paged(
        {"east": _LONG, "west": range(-7 * DAY - 240, -7 * DAY)}
    ),
    "one joins": Paged({"east": _LONG, "west": range(15, 31)}),
    "one joins, and there was nothing before": Paged(
        {"east": range(5, 31), "west": range(15, 31)}
    ),
    "one comes back": Paged(
        {"east": _LONG, "west": [*range(-200, -100), *range(15, 31)]}, (("west", 0, 14),)
    ),
    "one is away for a while": Paged(
        {"east": _LONG, "west": [*range(-200, 4), *range(9, 31)]}, (("west", 3, 8),)
    ),
    "both are away for a while": Paged(
        {"east": [*range(-200, 11), *range(21, 31)], "west": [*range(-200, 12), *range(19, 31)]},
        (("east", 10, 20), ("west", 11, 18)),
    ),
    "an older program keeps the books of all": Paged(
        {"": range(5, 31), "east": range(-200, 5), "west": range(-200, 5)}
    ),
    "an older program is gone": Paged(
        {"": range(-200, 8), "east": range(7, 31), "west": range(-200, 3)}, (("west", 7, 30),)
    ),
    "one cluster, whose books are of nobody else": Paged(
        {"": range(-200, 5), "east": range(9, 31)}, (("", 4, 8),)
    ),
}  # fmt: skip


def keep_pages(store: Store, minutes: Minutes, begin_s: int = T0) -> None:
    """Store the pages, with a stage and a node each, in one INSERT."""
    pages = [(begin_s + 60 * minute, name) for name, of in minutes.items() for minute in of]
    ends = ", ".join(str(end_s) for end_s, _ in pages)
    names = ", ".join(f"'{name}'" for _, name in pages)
    settings: Any = store._settings  # type: ignore[attr-defined]
    admin(store)(
        f"INSERT INTO {settings.database}.flow_books"
        " (time, seconds, stage, node, what, records, writer, clusterUUID)"
        " SELECT toDateTime(page.1), 60, of.1, of.2, 'received', 1, concat('w-', page.2), page.2"
        f" FROM (SELECT arrayJoin(arrayMap((a, b) -> (a, b), [{ends}], [{names}])) AS page)"
        " ARRAY JOIN [('collector', ''), ('exporter', 'n1')] AS of"
    )
