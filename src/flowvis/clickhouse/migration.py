"""Creating the schema and bringing an older one up to date, idempotently.

The database remembers, in `flowvis_schema`, which version of the schema it has and a digest of the
views, so that views are made anew only when they differ. Columns are only ever added; an older
program that meets a newer schema stops with a clear error instead of writing half of it.
"""

import hashlib
from dataclasses import dataclass

from flowvis.clickhouse import schema
from flowvis.clickhouse.features import Execute, Features
from flowvis.errors import StoreError


@dataclass(frozen=True, slots=True)
class Migration:
    """Works on one database through a function that executes one statement."""

    execute: Execute
    database: str
    features: Features
    ttl_s: int

    def run(self) -> None:
        """Create or upgrade; StoreError when the database is newer, or somebody else's."""
        self._create_database()
        engines = self._engines()
        self._check_owner(engines)
        version, digest = self._recorded(engines)
        if version > schema.VERSION:
            raise StoreError(
                f"database {self.database} has schema version {version}, this program knows"
                f" {schema.VERSION}: upgrade the flow-aggregator, or give it another database",
                retryable=False,
            )
        self.execute(schema.create_table(self.database, self.features, self.ttl_s))
        added = self._add_columns()
        self._set_ttl()
        self._make_views(engines, stale=added or digest != self._digest())
        if (version, digest) != (schema.VERSION, self._digest()):
            self.execute(
                f"INSERT INTO {self.database}.{schema.VERSIONS} SELECT"
                f" {schema.VERSION}, '{self._digest()}', now()"
            )

    def _create_database(self) -> None:
        found = self.execute(f"SELECT name FROM system.databases WHERE name = '{self.database}'")
        if not list(found):
            self.execute(f"CREATE DATABASE IF NOT EXISTS {self.database}")

    def _engines(self) -> dict[str, str]:
        """The engine of each table and view there is."""
        rows = self.execute(
            f"SELECT name, engine FROM system.tables WHERE database = '{self.database}'"
        )
        return {str(name): str(engine) for name, engine in rows}

    def _check_owner(self, engines: dict[str, str]) -> None:
        """Refuse to touch a `flows` that Antrea's or Theia's DDL made."""
        foreign = [
            name for name in schema.views(self.database) if engines.get(name, "View") != "View"
        ]
        if foreign:
            moves = ", ".join(f"{name} TO {name}_before" for name in foreign)
            raise StoreError(
                f"database {self.database} has tables that flowvis did not make:"
                f" {', '.join(foreign)}. Give flowvis a database of its own"
                f" (clickHouse.database), or keep them aside: RENAME TABLE {moves}",
                retryable=False,
            )

    def _recorded(self, engines: dict[str, str]) -> tuple[int, str]:
        """The version and the digest of the views; (0, "") in a new database."""
        if schema.VERSIONS not in engines:
            self.execute(
                f"CREATE TABLE IF NOT EXISTS {self.database}.{schema.VERSIONS}"
                " (version UInt32, views String, changed DateTime)"
                " ENGINE = MergeTree ORDER BY (version, changed)"
            )
            return 0, ""
        rows = self.execute(
            f"SELECT version, views FROM {self.database}.{schema.VERSIONS}"
            " ORDER BY version DESC, changed DESC LIMIT 1"
        )
        return next(((int(version), str(digest)) for version, digest in rows), (0, ""))

    def _digest(self) -> str:
        text = "\n".join(schema.views(self.database).values())
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def _add_columns(self) -> bool:
        """Add the columns that are new since the table was made; tell whether there were any."""
        rows = self.execute(
            f"SELECT name FROM system.columns WHERE database = '{self.database}'"
            f" AND table = '{schema.TABLE}'"
        )
        statements = list(
            schema.add_columns(self.database, self.features, [str(row[0]) for row in rows])
        )
        for statement in statements:
            self.execute(statement)
        return bool(statements)

    def _set_ttl(self) -> None:
        """Make the table's TTL what the settings say."""
        if not self.features.ttl:
            return
        rows = self.execute(
            f"SELECT engine_full FROM system.tables WHERE database = '{self.database}'"
            f" AND name = '{schema.TABLE}'"
        )
        engine = str(next(iter(rows))[0])
        table = f"{self.database}.{schema.TABLE}"
        if not self.ttl_s:
            if " TTL " in engine:
                self.execute(f"ALTER TABLE {table} REMOVE TTL")
        elif f"toIntervalSecond({self.ttl_s})" not in engine:
            self.execute(
                f"ALTER TABLE {table} MODIFY TTL {schema.ttl_sql(self.ttl_s)}"
                " SETTINGS materialize_ttl_after_modify = 0"
            )

    def _make_views(self, engines: dict[str, str], *, stale: bool) -> None:
        for name, select in schema.views(self.database).items():
            view = f"{self.database}.{name}"
            if name in engines and stale:
                self.execute(f"DROP TABLE IF EXISTS {view}")
            if name not in engines or stale:
                self.execute(f"CREATE VIEW IF NOT EXISTS {view} AS {select}")
