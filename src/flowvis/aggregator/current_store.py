"""The store that is asked: that of the destination ClickHouse, which comes and goes."""

from collections.abc import Callable, Mapping

from flowvis.aggregator.api.problems import Problem
from flowvis.aggregator.cluster_identity import ClusterIdentity
from flowvis.aggregator.destinations.clickhouse import store_of
from flowvis.aggregator.destinations.outlets import Outlets
from flowvis.clickhouse.history import BookHistory
from flowvis.clickhouse.query import Query
from flowvis.clickhouse.statement import COMPOSED_LENGTH
from flowvis.clickhouse.store import Store
from flowvis.questions.kept_books import Uncommitted
from flowvis.questions.planner import RECORDS_ONLY, Stored
from flowvis.questions.statement import COMPOSED_ROWS


class CurrentStore:
    """Whatever store there is at the moment."""

    def __init__(
        self,
        destinations: Outlets,
        books: BookHistory,
        now_ms: Callable[[], int],
        identity: ClusterIdentity,
    ) -> None:
        self._destinations, self._books, self._now_ms = destinations, books, now_ms
        self._identity = identity

    def get(self) -> Store | None:
        """Return it; None where none is configured."""
        return store_of(self._destinations.current("clickhouse"))

    def query(self, sql: str, max_rows: int) -> Query:
        """Ask somebody's own SQL; Problem where there is no store."""
        return self._known().ask(sql, max_rows=max_rows)

    def compose(self, sql: str) -> Query:
        """Ask a statement of ours; Problem where there is no store."""
        return self._known().ask(sql, max_rows=COMPOSED_ROWS, max_length=COMPOSED_LENGTH)

    def uncommitted(self) -> Uncommitted:
        """Return what the books have that is not stored yet."""
        now_s = self._now_ms() // 1000
        store = self.get()
        kept_s = store.kept.books_s if store is not None else 0
        books, identity = self._books, self._identity
        return Uncommitted(
            books.last_s, now_s, books.since(now_s), kept_s, books.writer,
            identity.id(), identity.ids(),
        )  # fmt: skip

    def settled(self) -> Mapping[str, int]:
        """Return until when its roll-ups have all records, in ms."""
        store = self.get()
        return {} if store is None else dict(store.settled)

    def stored(self) -> Stored:
        """Return what it has, by which questions are planned."""
        store = self.get()
        if store is None:
            return RECORDS_ONLY
        return Stored.of(store.kept, store.settled, self._now_ms(), store.lost)

    def _known(self) -> Store:
        store = self.get()
        if store is None:
            raise Problem("no-store", "no store is configured: set clickHouse.enable")
        return store
