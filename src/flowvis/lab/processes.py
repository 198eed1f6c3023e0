"""The daemons of the lab as processes of their own, each in its network namespace."""

import asyncio
import os
import signal
import subprocess
import sys
from urllib.request import urlopen

from flowvis.errors import SystemRefused
from flowvis.lab.books import Ledger, closing_books
from flowvis.lab.cluster import ENVIRONMENT
from flowvis.lab.configuration import CONTROL_SOCKET, ROOM, STATUS_PORT
from flowvis.lab.namespaces import inside

READY = f"http://127.0.0.1:{STATUS_PORT}/readyz"
METRICS = f"http://127.0.0.1:{STATUS_PORT}/metrics"
READY_S = 30.0  # the embedded engine alone takes seconds to load on a busy machine
STOP_S = 30.0
TAIL = 30  # lines of a log that say why
OVERRIDES = {"NODE_NAME", "POD_NAMESPACE", "CH_USERNAME", "CH_PASSWORD"}
"""Variables that win over a daemon's configuration file."""

FLOWCTL = (sys.executable, "-m", "flowvis.cli.flowctl", "--socket", str(CONTROL_SOCKET))


class DaemonProcess:
    """One daemon: started, asked over its status port, and ended by SIGTERM."""

    def __init__(self, name: str, module: str, namespace: str) -> None:
        self.name = name
        self._command: tuple[str, ...] = (
            sys.executable,
            "-m",
            module,
            "--config",
            str(ROOM / f"{name}.yaml"),
        )
        self._namespace = namespace
        self._log = ROOM / f"{name}.log"
        self._log_began = 0
        """Where what the present process writes begins in it."""
        self._process: subprocess.Popen[bytes] | None = None
        self._ended: subprocess.Popen[bytes] | None = None
        """The last process that was told to end."""
        self.environment: dict[str, str] = {}
        """Variables that it gets beside those of all."""

    async def start(self) -> None:
        """Start it and wait until it says that it is ready."""
        self.spawn()
        await self.ready()

    def spawn(self) -> None:
        """Start it, and wait for nothing; one that runs stays, as another fault started it."""
        if self._process is not None and self._process.poll() is None:
            return
        with self._log.open("ab") as log, inside(self._namespace):
            self._log_began = log.tell()
            self._process = subprocess.Popen(
                self._command,
                env={**_environment(), **self.environment},
                cwd=ROOM,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    async def ready(self) -> None:
        """Wait until it says that it is ready; where a fault has ended it, until it is back."""
        try:
            async with asyncio.timeout(READY_S):
                while not await asyncio.to_thread(self._ready):
                    process = self._process
                    over = process is None or process.poll() is not None
                    if over and (process is None or process is not self._ended):
                        code = process.returncode if process else "nothing"
                        raise SystemRefused(self.complain(f"ended with {code}"))
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise SystemRefused(self.complain(f"is not ready after {READY_S:g} s")) from None

    async def metrics(self) -> str:
        """Return what its status port says; OSError where it does not answer."""
        return await asyncio.to_thread(self._metrics)

    async def metric(self, name: str) -> float:
        """Return the sum of a metric's samples, whatever their labels; 0 without any."""
        lines = (await self.metrics()).splitlines()
        samples = [line for line in lines if line.split("{")[0].split(" ")[0] == name]
        return sum(float(line.rpartition(" ")[2]) for line in samples)

    async def stop(self) -> int:
        """End it by SIGTERM and return its exit code; one that hangs is killed."""
        if self._process is None:
            return 0
        self._ended = self._process
        self._process.send_signal(signal.SIGTERM)
        try:
            return await asyncio.to_thread(self._process.wait, STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return await asyncio.to_thread(self._process.wait)

    async def kill(self) -> None:
        """End it by SIGKILL, whatever it is doing; it leaves no books."""
        if self._process is not None:
            self._ended = self._process
            self._process.kill()
            await asyncio.to_thread(self._process.wait)

    def send(self, number: signal.Signals) -> None:
        """Send it a signal that it outlives: SIGSTOP, SIGCONT."""
        if self._process is not None:
            self._process.send_signal(number)

    def complain(self, what: str) -> str:
        """Say what is wrong with it, with the end of its log."""
        lines = self._log.read_text(errors="replace").splitlines()[-TAIL:]
        return "\n  ".join([f"{self.name} {what}:", *lines])

    def has_logged(self, text: str) -> bool:
        """Whether a text is in its log."""
        return text in self._log.read_text(errors="replace")

    def closing_books(self) -> Ledger:
        """Return the books that it wrote when it ended."""
        with self._log.open(errors="replace") as log:
            log.seek(self._log_began)
            return closing_books(log.read())

    def _metrics(self) -> str:
        with inside(self._namespace), urlopen(METRICS, timeout=5) as answer:
            text: str = answer.read().decode()
        return text

    def _ready(self) -> bool:
        try:
            with inside(self._namespace), urlopen(READY, timeout=5):
                return True
        except OSError:  # nobody listens yet, or it says 503
            return False


def _environment() -> dict[str, str]:
    """Return the environment of a Pod that keeps its files in the lab; none of it is the host's."""
    kept = {name: value for name, value in os.environ.items() if name not in OVERRIDES}
    return {**kept, **ENVIRONMENT, "HOME": str(ROOM), "TMPDIR": str(ROOM)}
