"""The history of the books: which page is due, and what it has to say.

A page has what was counted since the last page that the store acknowledged. So one that is never
stored leaves no hole: the next one has its numbers as well, over a longer interval. One whose fate
is unknown is repeated as it was, under its id, by whichever writer comes next.
"""

from collections.abc import Callable, Iterable

from flowvis.clickhouse.schema.books import BookEntry, Page, What
from flowvis.clickhouse.schema.encode import BatchId

PERIOD_S = 60
"""From page to page. A clock that is behind the last one by more was set back."""

Account = tuple[str, str, str, str]


class BookHistory:
    """Pages of books that `entries` gives: all of them, for an interval of so many seconds.

    `cluster` says whose they are, as far as that is known when a page is made.
    """

    def __init__(
        self,
        entries: Callable[[int], Iterable[BookEntry]],
        writer: str,
        began_s: int,
        cluster: Callable[[], str] = lambda: "",
    ) -> None:
        self._entries = entries
        self._cluster = cluster
        self.writer = writer
        """Another one after each time that the clock was set back, as moments come again then."""
        self._process, self._set_back = writer, 0
        self._last_s = self._begun_s = began_s
        self._known: dict[Account, int] = {}
        self._open: tuple[Page, dict[Account, int]] | None = None
        self._looked = (-1, -1)
        self._uncommitted: list[BookEntry] = []
        self.repeated = False
        """Whether the open page was given out before, so that the store may have it."""

    @property
    def last_s(self) -> int:
        """The end of the last page that was acknowledged."""
        return self._last_s

    def page(self, now_s: int, *, last: bool = False) -> Page | None:
        """Return the page that is to be stored now, if one is: at the `last` whatever there is."""
        if self._open is None:
            if now_s < self._last_s - (0 if last else PERIOD_S):
                self._set_back += 1
                self.writer = f"{self._process}-{self._set_back}"
                self._last_s = self._begun_s = now_s - 1
            if now_s - self._begun_s < (1 if last else PERIOD_S) or now_s <= self._last_s:
                return None
            self._begun_s = now_s
            seconds = now_s - self._last_s
            found = list(self._entries(seconds))
            now = {entry.account: entry.records for entry in found if entry.what.counts}
            batch_id, grown = BatchId(self.writer, now_s), self._grown(found)
            page = Page(batch_id, seconds, grown, self._cluster())
            self._open = page, now
            self.repeated = False
        else:
            self.repeated = True
        return self._open[0]

    def acknowledged(self, page: Page) -> None:
        """The store has the page."""
        if self._open is not None and self._open[0] is page:
            self._known, self._last_s, self._open = self._open[1], page.batch_id.inserted_s, None

    def refused(self, page: Page) -> None:
        """The store will never take the page: its numbers go into the next one."""
        if self._open is not None and self._open[0] is page:
            self._open = None

    def since(self, now_s: int) -> list[BookEntry]:
        """Return what is not in the store yet; within a second the same, as it is asked often."""
        if self._looked != (now_s, self._last_s):
            self._looked = now_s, self._last_s
            self._uncommitted = self._grown(self._entries(max(now_s - self._last_s, 0)))
        return self._uncommitted

    def _grown(self, entries: Iterable[BookEntry]) -> list[BookEntry]:
        """Return what the numbers have grown by; of what did not, only that it was received."""
        found = []
        for entry in entries:
            before = self._known.get(entry.account, 0) if entry.what.counts else 0
            # What is less than it was began anew: of an exporter that was forgotten.
            records = entry.records - before if entry.records >= before else entry.records
            if records or entry.what is What.RECEIVED:
                found.append(BookEntry(entry.stage, entry.what, records, entry.reason, entry.node))
        return found
