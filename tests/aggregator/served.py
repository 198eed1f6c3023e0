"""The API on a control socket, over views that a test can change."""

import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flowvis.aggregator.api.latest import LatestRecords
from flowvis.aggregator.api.server import HttpApi, Views
from flowvis.cli.client import ControlClient
from flowvis.clickhouse.store import Result
from flowvis.errors import StoreError

from .records import records

LIVE = records({"sourceIP": "10.0.0.1"}, {"sourceIP": "10.0.0.2"})


async def query(sql: str, max_rows: int) -> Result:
    if "broken" in sql:
        raise StoreError("no such table: broken", retryable=False)
    rows = [(1, "a", datetime(2026, 1, 2, tzinfo=UTC)), (2**64 - 1, "b", None)][:max_rows]
    return Result(["n", "s", "t"], ["UInt64", "String", "DateTime"], rows, truncated=max_rows < 2)


@contextlib.asynccontextmanager
async def served(
    path: Path, **changes: Any
) -> AsyncIterator[tuple[HttpApi, LatestRecords, ControlClient]]:
    history = LatestRecords(10)
    views: dict[str, Any] = {
        "status": lambda: {"version": "1"},
        "ledger": lambda: {"balanced": True, "stages": []},
        "flows": lambda limit, skip: LIVE.take(slice(skip, skip + limit)),
        "history": history,
        "query": query,
    }
    api = HttpApi(path / "control.sock", Views(**(views | changes)))
    await api.start()
    try:
        yield api, history, ControlClient(api.path)
    finally:
        await api.stop()
