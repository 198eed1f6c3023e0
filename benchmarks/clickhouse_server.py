"""Debian's clickhouse-server as a process of its own, so that its CPU is not ours."""

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

START_S = 30.0

CONFIG = """<yandex><logger><level>warning</level><log>{path}/log</log>
<errorlog>{path}/errors</errorlog></logger><tcp_port>{port}</tcp_port>
<listen_host>127.0.0.1</listen_host><path>{path}/data/</path><tmp_path>{path}/tmp/</tmp_path>
<users_config>{path}/users.xml</users_config><default_profile>default</default_profile>
<default_database>default</default_database><mark_cache_size>67108864</mark_cache_size></yandex>"""
USERS = """<yandex><profiles><default></default></profiles><users><default><password></password>
<networks><ip>::1</ip><ip>127.0.0.1</ip></networks><profile>default</profile>
<quota>default</quota></default></users><quotas><default></default></quotas></yandex>"""


class Server(NamedTuple):
    """A server that runs: its native port, and its process."""

    port: int
    pid: int


@contextlib.contextmanager
def clickhouse_server(path: Path) -> Iterator[int]:
    """Run a server on loopback with its data below `path`; yield its native port."""
    with running_server(path) as server:
        yield server.port


@contextlib.contextmanager
def running_server(path: Path) -> Iterator[Server]:
    """As `clickhouse_server`; yield all of it."""
    server = Restarted(path)
    server.start()
    try:
        yield Server(server.port, server.pid)
    finally:
        server.kill()


class Restarted:
    """A server that may be killed and started again, on the same port and data."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.mkdir(parents=True, exist_ok=True)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        (path / "config.xml").write_text(CONFIG.format(path=path, port=self.port))
        (path / "users.xml").write_text(USERS)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Of the process that runs."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it and wait until it answers."""
        program = shutil.which("clickhouse-server", path=f"{os.environ['PATH']}:/usr/sbin")
        assert program, "this benchmark needs clickhouse-server: apt install clickhouse-server"
        self._process = subprocess.Popen(
            [program, f"--config-file={self._path}/config.xml"],
            cwd=self._path,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            _wait(self.port)
        except BaseException:
            self.kill()
            raise

    def kill(self) -> None:
        """End it at once."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


def _wait(port: int) -> None:
    deadline = time.monotonic() + START_S
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        assert time.monotonic() < deadline, "clickhouse-server does not answer"
        time.sleep(0.05)
