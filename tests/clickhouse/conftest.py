"""Real stores: Debian's clickhouse-server as a process of ours, and the embedded engine."""

import contextlib
import itertools
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from flowvis.clickhouse.store import Store, StoreSettings, open_store

CONFIG = """<yandex>
<logger><level>warning</level><log>{path}/log</log><errorlog>{path}/errors</errorlog></logger>
<tcp_port>{port}</tcp_port><listen_host>127.0.0.1</listen_host>
{secure}
<path>{path}/data/</path><tmp_path>{path}/tmp/</tmp_path>
<users_config>{path}/users.xml</users_config><default_profile>default</default_profile>
<default_database>default</default_database><mark_cache_size>67108864</mark_cache_size>
<timezone>UTC</timezone></yandex>"""

SECURE = """<tcp_port_secure>{port}</tcp_port_secure><openSSL><server>
<certificateFile>{certificate}</certificateFile><privateKeyFile>{key}</privateKeyFile>
<verificationMode>none</verificationMode></server></openSSL>"""

USERS = """<yandex><profiles><default></default></profiles><users><default><password></password>
<networks><ip>::/0</ip></networks><profile>default</profile><quota>default</quota></default>
<writer><password>secret</password><networks><ip>::/0</ip></networks><profile>default</profile>
<quota>default</quota></writer></users><quotas><default></default></quotas></yandex>"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """clickhouse-server on loopback, in a directory of its own."""

    def __init__(self, path: Path, tls: tuple[Path, Path] | None = None) -> None:
        self.path = path
        self.port = free_port()
        self.secure_port = free_port() if tls else 0
        self._process: subprocess.Popen[bytes] | None = None
        secure = ""
        if tls:
            secure = SECURE.format(port=self.secure_port, certificate=tls[0], key=tls[1])
        config = CONFIG.format(path=path, port=self.port, secure=secure)
        path.mkdir(parents=True, exist_ok=True)
        (path / "config.xml").write_text(config)
        (path / "users.xml").write_text(USERS)

    @property
    def url(self) -> str:
        return f"tcp://127.0.0.1:{self.port}"

    def start(self) -> None:
        program = shutil.which("clickhouse-server", path=f"{os.environ['PATH']}:/usr/sbin")
        assert program, "these tests need Debian's clickhouse-server: apt install clickhouse-server"
        self._process = subprocess.Popen(
            [program, f"--config-file={self.path}/config.xml"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=self.path,
        )
        for port in filter(None, (self.port, self.secure_port)):
            self._wait(port)

    def _wait(self, port: int) -> None:
        assert self._process
        deadline = time.monotonic() + 30
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                return
            assert self._process.poll() is None, (self.path / "errors").read_text()
            assert time.monotonic() < deadline, "clickhouse-server does not answer"
            time.sleep(0.05)

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def send(self, number: signal.Signals) -> None:
        assert self._process
        self._process.send_signal(number)

    def _end(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("clickhouse"))
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="session")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded engine's directory: the engine is slow to load, so one for all."""
    return tmp_path_factory.mktemp("embedded") / "store"


_numbers = itertools.count()


@pytest.fixture
def server_settings(server: Server) -> StoreSettings:
    return StoreSettings(server.url, database=f"test{next(_numbers)}", ttl_s=0)


@pytest.fixture(params=["server", "embedded"])
def settings(request: pytest.FixtureRequest) -> StoreSettings:
    """Settings of an empty database, of each kind of store in turn."""
    if request.param == "server":
        found: StoreSettings = request.getfixturevalue("server_settings")
        return found
    path: Path = request.getfixturevalue("directory")
    return StoreSettings(f"embedded://{path}", database=f"test{next(_numbers)}", ttl_s=0)


MakeStore = Callable[..., Store]


@pytest.fixture
def make_store(settings: StoreSettings) -> Iterator[MakeStore]:
    """Open stores with these settings, changed as asked; all are closed at the end."""
    opened: list[Store] = []

    def make(**changes: object) -> Store:
        opened.append(open_store(replace(settings, **changes)))  # type: ignore[arg-type]
        return opened[-1]

    yield make
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


def admin(store: Store) -> Callable[[str], object]:
    """Let a test execute what `query` would refuse."""
    execute: Callable[[str], object] = store._execute  # type: ignore[attr-defined]
    return execute
