"""A ClickHouse server of the lab, which things can happen to."""

import asyncio
import contextlib
import shutil
import signal
import socket
import subprocess
from pathlib import Path

from flowvis.errors import SystemRefused
from flowvis.lab.isolation import environment

START_S = 30.0
STOP_S = 20.0
DISK_MB = 64
"""What the server's tables may take: a file system of its own."""

CONFIG = """<yandex><logger><level>warning</level><log>{path}/log</log>
<errorlog>{path}/errors</errorlog></logger><tcp_port>{port}</tcp_port>
<listen_host>127.0.0.1</listen_host><path>{path}/data/</path><tmp_path>{path}/data/tmp/</tmp_path>
<users_config>{path}/users.xml</users_config><default_profile>default</default_profile>
<default_database>default</default_database><mark_cache_size>67108864</mark_cache_size>
<timezone>UTC</timezone></yandex>"""
USERS = """<yandex><profiles><default>{limits}</default></profiles><users><default>
<password></password><networks><ip>127.0.0.1</ip></networks><profile>default</profile>
<quota>default</quota></default></users><quotas><default></default></quotas></yandex>"""


class ClickHouse:
    """clickhouse-server as a process in the lab's own network."""

    def __init__(self, path: Path, port: int) -> None:
        self.port = port
        self._path = path
        self._process: subprocess.Popen[bytes] | None = None

    def install(self) -> None:
        """Write its files, with a small disk for its tables."""
        data = self._path / "data"
        data.mkdir(parents=True)
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "flowvis-lab", str(data)], check=True
        )
        text = CONFIG.format(path=self._path, port=self.port)
        (self._path / "config.xml").write_text(text)
        self.limit()

    def limit(self, limits: str = "") -> None:
        """Set what its users may do, as elements of their profile; it looks every two seconds."""
        written = self._path / "users.new"
        written.write_text(USERS.format(limits=limits))
        written.rename(self._path / "users.xml")

    async def start(self) -> None:
        """Start it and wait until it answers."""
        program = shutil.which("clickhouse-server", path=environment()["PATH"])
        if program is None:
            raise SystemRefused("clickhouse-server not found: apt-get install clickhouse-server")
        process = self._spawn(program)
        try:
            async with asyncio.timeout(START_S):
                while not self._answers():
                    if process.poll() is not None:
                        raise SystemRefused(f"clickhouse-server ended: {self._errors()}")
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise SystemRefused(f"clickhouse-server does not answer: {self._errors()}") from None

    def _spawn(self, program: str) -> subprocess.Popen[bytes]:
        self._process = subprocess.Popen(
            [program, f"--config-file={self._path}/config.xml"],
            cwd=self._path,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        return self._process

    async def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End it; one that hangs is killed."""
        if self._process is None:
            return
        self._process.send_signal(how)
        try:
            await asyncio.to_thread(self._process.wait, STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            await asyncio.to_thread(self._process.wait)
        self._process = None

    def send(self, number: signal.Signals) -> None:
        """Send it a signal that it outlives."""
        if self._process is not None:
            self._process.send_signal(number)

    def fill(self) -> None:
        """Leave no room on its disk."""
        with contextlib.suppress(OSError), self._filling().open("wb", buffering=0) as filling:
            while True:
                filling.write(bytes(1 << 16))

    def empty(self) -> None:
        """Give the room back."""
        self._filling().unlink(missing_ok=True)

    def _filling(self) -> Path:
        return self._path / "data" / "filling"

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            return True
        return False

    def _errors(self) -> str:
        with contextlib.suppress(OSError):
            return (self._path / "errors").read_text(errors="replace")[-2000:]
        return "no log"
