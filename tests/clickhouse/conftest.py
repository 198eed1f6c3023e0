"""Real stores: Debian's clickhouse-server as a process of ours, and the embedded engine."""

import contextlib
import itertools
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flowvis.clickhouse.store import Store, StoreSettings, open_store
from flowvis.errors import StoreError
from ports import free_port
from waiting import block_until

from .cluster import NAME, Cluster, Coordinator
from .server import Server

FOREVER: dict[str, Any] = {"ttl_s": 0, "minutes_ttl_s": 0, "hours_ttl_s": 0}
"""Settings of a store that keeps records of any time."""


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("clickhouse"))
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Two shards of two replicas each; a test that ends a server starts it again."""
    # Every column is two files on each server: in memory where there is room.
    memory = Path("/dev/shm")
    roomy = memory.exists() and shutil.disk_usage(memory).free > 1 << 30
    with tempfile.TemporaryDirectory(dir=memory if roomy else None) as directory:
        coordinator = Coordinator(Path(directory) / "zookeeper")
        cluster = Cluster(Path(directory) / "cluster", coordinator, shards=2, replicas=2)
        try:
            coordinator.start()
            cluster.start()
            yield cluster
        finally:
            cluster.kill()
            coordinator.stop()


@pytest.fixture(scope="session")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded engine's directory: the engine is slow to load, so one for all."""
    return tmp_path_factory.mktemp("embedded") / "store"


@pytest.fixture(scope="module")
def engine(directory: Path) -> Iterator[StoreSettings]:
    """Where embedded stores can be; it stays open, as the engine is slow to begin."""
    settings = StoreSettings(f"embedded://{directory}", database="opened", **FOREVER)
    store = open_store(settings)
    store.migrate()
    yield settings
    store.close()


_opened = itertools.count()


@pytest.fixture
def embedded(engine: StoreSettings) -> Iterator[Store]:
    """A store of the embedded engine that keeps everything, with a database of its own."""
    settings = replace(engine, database=f"opened{next(_opened)}")
    store = open_store(settings)
    store.migrate()
    yield store
    drop(settings)
    store.close()


def drop(settings: StoreSettings) -> None:
    """Drop what a test had in the embedded engine: all that is there is loaded at each beginning.

    Of hundreds of databases that took a quarter of a minute. Not where the test has harmed it.
    """
    store = open_store(settings)
    with contextlib.suppress(StoreError):
        admin(store)(f"DROP DATABASE IF EXISTS {settings.database} SYNC")
    store.close()


def place(request: pytest.FixtureRequest, database: str) -> StoreSettings:
    """Settings of a database in the kind of store that the fixture's parameter names."""
    if request.param == "embedded":
        url, cluster = f"embedded://{request.getfixturevalue('directory')}", ""
    elif request.param == "cluster":
        running = request.getfixturevalue("cluster")
        running.mend()
        url, cluster = running.servers[0, 0].url, NAME
    else:
        url, cluster = request.getfixturevalue("server").url, ""
    return StoreSettings(url, database=database, cluster=cluster, **FOREVER)


def migrate(store: Store) -> None:
    """Give a store the schema; servers of a cluster hear late of it while the machine is busy."""

    def migrated() -> bool:
        try:
            return not any("not all servers" in left for left in store.migrate())
        except StoreError as error:
            if not error.retryable:
                raise
            return False

    block_until(migrated)


_numbers = itertools.count()


@pytest.fixture
def server_settings(server: Server) -> StoreSettings:
    return StoreSettings(server.url, database=f"test{next(_numbers)}", **FOREVER)


@pytest.fixture(params=["server", "embedded"])
def settings(request: pytest.FixtureRequest) -> StoreSettings:
    """Settings of an empty database, of each kind of store in turn."""
    return place(request, f"test{next(_numbers)}")


MakeStore = Callable[..., Store]


@pytest.fixture
def make_store(settings: StoreSettings) -> Iterator[MakeStore]:
    """Open stores with these settings, changed as asked; all are closed at the end."""
    opened: list[Store] = []

    def make(**changes: object) -> Store:
        opened.append(open_store(replace(settings, **changes)))  # type: ignore[arg-type]
        return opened[-1]

    yield make
    if settings.database_url.startswith("embedded:"):
        drop(settings)
    for store in opened:
        store.close()


@pytest.fixture
def store(make_store: MakeStore) -> Store:
    """A store with the schema in place."""
    store = make_store()
    store.migrate()
    return store


@pytest.fixture
def unused_port() -> int:
    return free_port()


def admin(store: Store) -> Callable[[str], Any]:
    """Let a test execute what `query` would refuse."""
    execute: Callable[[str], Any] = store._execute  # type: ignore[attr-defined]
    return execute
