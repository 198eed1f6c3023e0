"""Which values a name of the filter language had in the store lately, remembered for a minute.

Who completes a text asks at every key: the store is asked once, and what is not there in time is
there at the next key.
"""

import asyncio
import logging
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from flowvis.aggregator.api.caller import Caller
from flowvis.aggregator.api.queries import Answers
from flowvis.aggregator.api.visibility import Visibility
from flowvis.clickhouse.query import Query
from flowvis.errors import FlowvisError
from flowvis.filters import EVERYTHING
from flowvis.filters.completion import LABEL_KEYS
from flowvis.filters.sql import Condition, condition
from flowvis.filters.vocabulary import SIDES, Name, lookup
from flowvis.questions.measures import BY_NAME as MEASURES
from flowvis.questions.planner import RECORDS_ONLY, Stored
from flowvis.questions.statement import Plan, Records
from flowvis.questions.times import TimeRange

log = logging.getLogger(__name__)

SPAN_MS = 6 * 3_600_000
"""How long ago values may be."""
KEPT_S = 60.0
MAX_VALUES = 1000
"""Values of a name that are remembered, those of most records."""
MAX_NAMES = 200
"""Names and visibilities for which they are."""
AT_ONCE = 2
"""Names that the store is asked about for one caller at one time: who types has one, or two."""
PATIENCE_S = 0.25
"""How long a completion waits for the store."""

Key = tuple[str, Visibility]


@dataclass
class _Remembered:
    """What the store said of one name, or is saying."""

    asked: float
    owner: str
    """Whose place it is asked in."""
    task: asyncio.Task[Counter[str]]
    before: Counter[str] = field(default_factory=Counter)
    """What it said the time before."""

    @property
    def found(self) -> Counter[str]:
        if self.task.done() and not self.task.cancelled():
            return self.task.result()
        return self.before


class StoredValues:
    """Asks the store for values, on the event loop."""

    def __init__(
        self,
        answers: Answers,
        prepare: Callable[[str], Query],
        now_ms: Callable[[], int],
        patience_s: float = PATIENCE_S,
        stored: Callable[[], Stored] = lambda: RECORDS_ONLY,
    ) -> None:
        self._answers, self._prepare, self._now_ms = answers, prepare, now_ms
        self._patience_s, self._stored = patience_s, stored
        self._remembered: OrderedDict[Key, _Remembered] = OrderedDict()

    async def of(self, name: str, caller: Caller) -> Counter[str]:
        """Return how many records that may be seen have each value of a name, as far as known.

        The store is asked in a place of the caller's, for few names at once. Problem where nothing
        may be seen.
        """
        about = _about(name)
        if about is None:
            return Counter()
        visibility = caller.visibility
        allowed = condition(visibility.of_store(visibility.restrict(EVERYTHING)))
        key = (name, visibility)
        known = self._remembered.get(key)
        if known is None or (time.monotonic() - known.asked >= KEPT_S and known.task.done()):
            before = known.found if known else Counter[str]()
            if self._asking(caller.name) >= AT_ONCE:
                return before
            task = asyncio.create_task(self._ask(about, allowed, caller.name))
            known = self._remembered[key] = _Remembered(time.monotonic(), caller.name, task, before)
            self._remembered.move_to_end(key)
            while len(self._remembered) > MAX_NAMES:
                self._remembered.popitem(last=False)[1].task.cancel()
        if not known.before:
            await asyncio.wait((known.task,), timeout=self._patience_s)
        return known.found

    async def close(self) -> None:
        """Give up what is being asked."""
        tasks = [known.task for known in self._remembered.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _asking(self, owner: str) -> int:
        """Return for how many names the store is being asked in somebody's places."""
        known = self._remembered.values()
        return sum(each.owner == owner and not each.task.done() for each in known)

    async def _ask(self, name: Name, allowed: Condition, owner: str) -> Counter[str]:
        now_ms = self._now_ms()
        records = Records(TimeRange(now_ms - SPAN_MS, now_ms), allowed, self._stored())
        try:
            answered = await self._answers.answer(_counts(name, records), self._prepare, owner)
        except FlowvisError as error:  # no store, or none that answers: the latest records do
            log.debug("values of %s: %s", name.name, error)
            return Counter()
        return answered.value


def _about(name: str) -> Name | None:
    """Return a name whose values a store can list; keys of labels are none."""
    side, _, rest = name.partition(".")
    if LABEL_KEYS in {name, rest if side in SIDES else ""}:
        return None
    found = lookup(name)
    return found if found.attributes[0].expression is not None else None


def _counts(name: Name, records: Records) -> Plan[Counter[str]]:
    found: Counter[str] = Counter()
    for attribute in name.attributes:
        counted = records.totals(
            {"value": attribute.expression or "''"},
            [MEASURES["records"]],
            tail=f"ORDER BY nm0 DESC LIMIT {MAX_VALUES}",
        )
        for value, count in (yield counted).rows:
            found[str(value)] += int(count)
    return found
