"""Creating the schema and bringing an older one up to date, idempotently.

The database remembers, in `flowvis_schema`, which version of the schema it has and a digest of the
views, so that views are made anew only when they differ. Columns are only ever added; an older
program that meets a newer schema stops with a clear error instead of writing half of it.

On a cluster each change is made by all servers, and what is asked one of them answers.
"""

import hashlib
import re
from collections.abc import Callable, Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from flowvis.clickhouse.schema import books, dropped, rolls, rollups
from flowvis.clickhouse.schema import tables as schema
from flowvis.clickhouse.schema.features import RECALCULATE_ONLY, Execute, Features
from flowvis.clickhouse.schema.layout import TableLayout
from flowvis.clickhouse.schema.retention import Retention, ttl_of
from flowvis.errors import StoreError

_FUNCTION = re.compile(r"\w+\(")
_ACCESS_DENIED = 497


@dataclass(frozen=True, slots=True)
class Migration:
    """Works on one database through a function that executes one statement."""

    execute: Execute
    layout: TableLayout
    features: Features
    kept: Retention

    def run(self, *, renew: bool = False) -> list[str]:
        """Create or upgrade; StoreError when the database is newer, or somebody else's.

        `renew` says that other servers may lack what this one has. Returns what could not be done,
        without which records can be written all the same.
        """
        self._create_database(renew=renew)
        engines = self._engines()
        self._check_owner(engines)
        version, digest = self._recorded(engines, renew=renew)
        if version > schema.VERSION:
            raise StoreError(
                f"database {self.layout.database} has schema version {version}, this program knows"
                f" {schema.VERSION}: upgrade the flow-aggregator, or give it another database",
                retryable=False,
            )
        if renew or self.layout.own(schema.TABLE) not in engines:
            self.execute(schema.create_table(self.layout, self.features, self.kept.records_s))
        self._keep_books(engines, renew=renew)
        stored = [column.name for column in schema.COLUMNS]
        added = self._add_columns() or self._lacks(engines, schema.TABLE, stored)
        self._set_ttl(schema.TABLE, schema.ttl_sql, self.kept.records_s)
        if self.features.rollups:
            self._keep_rollups(engines, renew=renew)
            self._keep_remembering()
        stale = added or digest != self._digest()
        if left := self._show(engines, stale=stale, renew=renew):
            return [left]
        if (version, digest) != (schema.VERSION, self._digest()):
            self.execute(
                f"INSERT INTO {self.layout.database}.{schema.VERSIONS} SELECT"
                f" {schema.VERSION}, '{self._digest()}', now()"
            )
        return []

    def _create_database(self, *, renew: bool) -> None:
        database = self.layout.database
        found = self.execute(f"SELECT name FROM system.databases WHERE name = '{database}'")
        if not list(found) or (renew and self.layout.cluster):
            self.execute(f"CREATE DATABASE IF NOT EXISTS {database}{self.layout.everywhere}")

    def _engines(self) -> dict[str, str]:
        """The engine of each table and view there is."""
        rows = self.execute(
            f"SELECT name, engine FROM system.tables WHERE database = '{self.layout.database}'"
        )
        return {str(name): str(engine) for name, engine in rows}

    def _check_owner(self, engines: dict[str, str]) -> None:
        """Refuse to touch a `flows` that Antrea's or Theia's DDL made, and the other layout."""
        database = self.layout.database
        foreign = [
            name
            for name, ours in schema.engines(self.layout).items()
            if not engines.get(name, ours).endswith(ours)
        ]
        if foreign and schema.VERSIONS in engines:
            made, wanted = "a cluster", "empty"
            if self.layout.cluster:
                made, wanted = "one server", self.layout.cluster
            raise StoreError(
                f"database {database} was made for {made}, and clickHouse.cluster is {wanted}:"
                " give flowvis another database (clickHouse.database); docs/clickhouse.md says how"
                " the records get there",
                retryable=False,
            )
        if foreign:
            moves = ", ".join(f"{name} TO {name}_before" for name in foreign)
            raise StoreError(
                f"database {database} has tables that flowvis did not make:"
                f" {', '.join(foreign)}. Give flowvis a database of its own"
                f" (clickHouse.database), or keep them aside: RENAME TABLE {moves}",
                retryable=False,
            )

    def _recorded(self, engines: dict[str, str], *, renew: bool) -> tuple[int, str]:
        """The version and the digest of the views; (0, "") in a new database."""
        if renew or schema.VERSIONS not in engines:
            self.execute(schema.create_versions(self.layout))
        rows = self.execute(
            f"SELECT version, views FROM {self.layout.database}.{schema.VERSIONS}"
            " ORDER BY version DESC, changed DESC LIMIT 1"
        )
        return next(((int(version), str(digest)) for version, digest in rows), (0, ""))

    def _digest(self) -> str:
        text = "\n".join(schema.shown(self.layout).values())
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def _add_columns(self) -> bool:
        """Add the columns that are new since the table was made; tell whether there were any."""
        missing = list(schema.add_columns(self.layout, self.features, self._columns()))
        for name, statement in missing:
            self._add(schema.TABLE, {name}, statement)
        return bool(missing)

    def _add(self, table: str, columns: AbstractSet[str], statement: str) -> None:
        """Add columns to a table, unless another aggregator was quicker."""
        try:
            self.execute(statement)
        except StoreError:
            if not columns <= set(self._columns(table)):
                raise

    def _keep_books(self, engines: dict[str, str], *, renew: bool) -> None:
        """Create the table of the books, or add the columns that are new."""
        layout, table = self.layout, schema.BOOKS
        if renew or layout.own(table) not in engines:
            self.execute(books.create_books(layout, self.features, self.kept.books_s))
        if added := books.add_columns(layout, self.features, self._columns(table)):
            self._add(table, books.COLUMNS.keys(), added)
        self._set_ttl(table, books.ttl_sql, self.kept.books_s)
        if self._lacks(engines, table, books.COLUMNS):
            self._drop_shown(table)
            self.execute(schema.shown(layout)[table])

    def _lacks(self, engines: dict[str, str], table: str, columns: Iterable[str]) -> bool:
        """Whether what shows all servers' rows lacks columns, whoever added them to these."""
        if not self.layout.cluster or table not in engines:
            return False
        return not {name for (name,) in self._columns_of(table, "name")} >= set(columns)

    def _drop_shown(self, table: str) -> None:
        layout = self.layout
        self.execute(f"DROP TABLE IF EXISTS {layout.database}.{table}{layout.everywhere}")

    def _keep_rollups(self, engines: dict[str, str], *, renew: bool) -> None:
        """Create the roll-ups, or add the dimensions and measures that are new."""
        layout = self.layout
        if renew or rolls.ROLLED not in engines:
            self.execute(rolls.create_rolled(layout))
        for rollup in rollups.ROLLUPS:
            ttl_s = self.kept.of(rollup)
            if renew or layout.own(rollup.name) not in engines:
                self.execute(rollups.create(layout, self.features, rollup, ttl_s))
            known = self._columns(rollup.name)
            if added := rollups.add_columns(layout, self.features, rollup, known):
                self.execute(added)
            made = self._shown_by("create_table_query", rollup.name)
            codecs = self._codecs(rollup.name)
            for statement in rollups.compress(layout, self.features, rollup, made, codecs):
                self.execute(statement)
            if self.features.projections:
                for statement in rollups.change_projections(layout, self.features, rollup, made):
                    self.execute(statement)
            self._set_ttl(rollup.name, rollups.ttl_sql, ttl_s)
            if layout.cluster:
                self._show_rollup(rollup, engines, renew=renew)

    def _keep_remembering(self) -> None:
        """Have replicas know repetitions for as long as these may come."""
        if not self.layout.cluster:
            return
        for table in (schema.TABLE, schema.BOOKS, *(rollup.name for rollup in rollups.ROLLUPS)):
            engine = self._shown_by("engine_full", table)
            for statement in schema.remember(self.layout, table, engine):
                self.execute(statement)

    def _show_rollup(self, rollup: rollups.Rollup, engines: dict[str, str], *, renew: bool) -> None:
        """Make what shows all servers' rows, anew where it lacks columns."""
        stale = self._lacks(engines, rollup.name, (column.name for column in rollup.columns))
        if stale:
            self._drop_shown(rollup.name)
        if renew or stale or rollup.name not in engines:
            self.execute(rollups.over_all(self.layout, rollup))

    def _columns(self, table: str = schema.TABLE) -> list[str]:
        return [name for (name,) in self._columns_of(self.layout.own(table), "name")]

    def _codecs(self, table: str) -> dict[str, str]:
        own = self.layout.own(table)
        return {row[0]: row[1] for row in self._columns_of(own, "name, compression_codec")}

    def _columns_of(self, table: str, what: str) -> list[tuple[str, ...]]:
        rows = self.execute(
            f"SELECT {what} FROM system.columns WHERE database = '{self.layout.database}'"
            f" AND table = '{table}'"
        )
        return [tuple(map(str, row)) for row in rows]

    def _shown_by(self, column: str, table: str) -> str:
        """Return what the server shows of a table."""
        rows = self.execute(
            f"SELECT {column} FROM system.tables WHERE database = '{self.layout.database}'"
            f" AND name = '{self.layout.own(table)}'"
        )
        return str(next(iter(rows))[0])

    def _set_ttl(self, table: str, ttl_sql: Callable[[int], str], ttl_s: int) -> None:
        """Make a table's TTL what the settings say; 0 keeps all."""
        if not self.features.ttl:
            return
        engine = self._shown_by("engine_full", table)
        altered = f"{self.layout.database}.{self.layout.own(table)}{self.layout.everywhere}"
        before_s = ttl_of(engine)
        longer = bool(before_s) and (not ttl_s or ttl_s > before_s)
        if longer:
            self._make_notes()
            self.execute(dropped.note_shorter_sql(self.layout.database, table, before_s))
        if not ttl_s:
            if " TTL " in engine:
                self.execute(f"ALTER TABLE {altered} REMOVE TTL")
        elif f"toIntervalSecond({ttl_s})" not in engine or any(
            function not in engine for function in _FUNCTION.findall(ttl_sql(ttl_s))
        ):  # that of a program before may be made of others
            self.execute(
                f"ALTER TABLE {altered} MODIFY TTL {ttl_sql(ttl_s)}"
                " SETTINGS materialize_ttl_after_modify = 0"
            )
        if longer and (not ttl_s or self._lengthen(altered)):
            self.execute(dropped.note_lengthened_sql(self.layout.database, table))

    def _lengthen(self, altered: str) -> bool:
        """Have rows that are there kept for longer, whose parts know when they go; tell if so.

        That reads the columns of the TTL and writes none; without it the old TTL goes on for them.
        """
        if not self.features.recalculates_ttl:
            return False
        try:
            self.execute(f"ALTER TABLE {altered} MODIFY SETTING {RECALCULATE_ONLY} = 1")
            self.execute(f"ALTER TABLE {altered} MATERIALIZE TTL")
        except StoreError as error:
            if error.code != _ACCESS_DENIED:
                raise
            return False
        return True

    def _make_notes(self) -> None:
        """Create the table of what went, with all of its columns."""
        self.execute(dropped.create_dropped(self.layout))
        found = self.execute(dropped.dropped_columns_sql(self.layout.database))
        if any(int(lacks) for _, lacks in found):
            self.execute(dropped.extend_dropped(self.layout))

    def _show(self, engines: dict[str, str], *, stale: bool, renew: bool) -> str:
        """Make what shows the records, anew where it is stale; return why that cannot be, if so.

        On a cluster INSERTs go through what shows them, so there it has to be.
        """
        made = schema.shown(self.layout)
        refusal = ""
        for name in made if stale else ():
            if name not in engines:
                continue
            try:
                self._drop_shown(name)
            except StoreError as error:
                if error.code != _ACCESS_DENIED or self.layout.cluster:
                    raise
                refusal = f"views stay as a program before made them: {error}"
        for name, statement in made.items():
            if renew or stale or name not in engines:
                self.execute(statement)
        return refusal
