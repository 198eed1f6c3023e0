"""A Prometheus that scrapes the lab's daemons, with rules of whoever runs it.

A daemon answers on loopback of its own network: a relay in the lab's leads to that of each node.
"""

import asyncio
import json
import shutil
import subprocess
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

import yaml

from flowvis.errors import SystemRefused
from flowvis.lab.configuration import AGGREGATOR, STATUS_PORT, exporter_name
from flowvis.lab.isolation import environment
from flowvis.lab.links import connecting, listening
from flowvis.lab.plan import NODES
from flowvis.lab.relay import Relay

PORT = 9090
FIRST_RELAY_PORT = STATUS_PORT + 1
INTERVAL = "1s"
"""Of scrapes and of rules."""

START_S = 20.0
SETTLED_S = 1.0
"""After the first scrapes: rules have been evaluated with them."""

FIRED = 'count_over_time(ALERTS{{alertstate="firing"}}[{}s])'
UNNAMED = {"__name__", "alertname", "alertstate", "job", "severity"}
"""Labels that do not say of what an alert is."""

UP = "sum(up)"


@dataclass(frozen=True)
class Found:
    """What it saw."""

    span_s: int
    """For how long it has looked, since the daemons are there."""
    alerts: dict[str, list[dict[str, str]]]
    """Which alerts fired: by name, the labels of what each was of."""
    metrics: list[str]
    """The names of all."""


class Prometheus:
    """Debian's prometheus as a process in the lab's own network."""

    def __init__(self, path: Path, rules: str) -> None:
        """`rules` is the text of a file of rules."""
        self._path, self._rules = path, rules
        self._relays: list[Relay] = []
        self._targets = {AGGREGATOR: STATUS_PORT}
        self._process: subprocess.Popen[bytes] | None = None
        self._began_s = 0.0
        """From when on alerts count."""

    async def spawn(self) -> None:
        """Start it, before the daemons: it takes 5 s until it scrapes."""
        program = shutil.which("prometheus", path=environment()["PATH"])
        if program is None:
            raise SystemRefused("prometheus not found: apt-get install prometheus")
        for port, node in enumerate(NODES, FIRST_RELAY_PORT):
            connect = partial(connecting, node.name, "127.0.0.1", STATUS_PORT)
            relay = Relay(listening("", port), connect)
            await relay.start()
            self._relays.append(relay)
            self._targets[exporter_name(node)] = port
        self._write()
        self._start(program)

    async def ready(self) -> None:
        """Wait until it has scraped every daemon: what fired before was their absence."""
        try:
            async with asyncio.timeout(START_S):
                while await asyncio.to_thread(_up) < len(self._targets):
                    if self._process is None or self._process.poll() is not None:
                        raise SystemRefused(f"prometheus ended: {self._said()}")
                    await asyncio.sleep(0.1)
        except TimeoutError:
            raise SystemRefused(f"prometheus does not scrape: {self._said()}") from None
        self._began_s = time.monotonic() + SETTLED_S

    async def found(self) -> Found:
        """Return which alerts fired so far, and which metrics there are."""
        span_s = max(int(time.monotonic() - self._began_s), 1)
        samples = (await asyncio.to_thread(_get, "query", query=FIRED.format(span_s)))["result"]
        alerts: dict[str, list[dict[str, str]]] = {}
        for sample in samples:
            labels = {name: text for name, text in sample["metric"].items() if name not in UNNAMED}
            alerts.setdefault(sample["metric"]["alertname"], []).append(labels)
        metrics = await asyncio.to_thread(_get, "label/__name__/values")
        return Found(span_s, dict(sorted(alerts.items())), sorted(metrics))

    async def stop(self) -> None:
        """End it; nobody needs what it has stored."""
        if self._process is not None:
            self._process.kill()
            await asyncio.to_thread(self._process.wait)
        for relay in self._relays:
            await relay.stop()

    def _write(self) -> None:
        self._path.mkdir()
        (self._path / "rules.yml").write_text(self._rules)
        static = [
            {"targets": [f"127.0.0.1:{port}"], "labels": {"instance": name}}
            for name, port in self._targets.items()
        ]
        document = {
            "global": {"scrape_interval": INTERVAL, "evaluation_interval": INTERVAL},
            "rule_files": ["rules.yml"],
            "scrape_configs": [{"job_name": "flowvis", "static_configs": static}],
        }
        (self._path / "prometheus.yml").write_text(yaml.safe_dump(document))

    def _start(self, program: str) -> None:
        with (self._path / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [
                    program,
                    f"--config.file={self._path}/prometheus.yml",
                    f"--storage.tsdb.path={self._path}/data",
                    f"--web.listen-address=127.0.0.1:{PORT}",
                    "--log.level=warn",
                ],
                cwd=self._path,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def _said(self) -> str:
        lines = (self._path / "log").read_text(errors="replace").splitlines()
        return "; ".join(lines[-3:])


def _up() -> int:
    """Return how many daemons the last scrapes reached."""
    try:
        return sum(int(one["value"][1]) for one in _get("query", query=UP)["result"])
    except OSError:  # it does not answer yet
        return 0


def _get(path: str, **arguments: str) -> Any:
    url = f"http://127.0.0.1:{PORT}/api/v1/{path}?{urlencode(arguments)}"
    with urlopen(url, timeout=10) as answer:
        return json.load(answer)["data"]
