"""A flow-aggregator that may be killed and started again, and what is seen of each of its lives."""

import contextlib
import os
import signal
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from benchmarks.aggregator_process import CONTROL
from benchmarks.usage import resident_mb
from flowvis.cli.client import ControlClient
from flowvis.errors import FlowvisError
from flowvis.runtime.dropped import reason_of

START_S = 60.0
MINUTE_S = 60.0
POLL_S = 0.1


@dataclass
class Life:
    """What one process held, as it was looked at: seconds since its start, and MB."""

    looks: list[tuple[float, float]] = field(default_factory=list)

    @property
    def peak_mb(self) -> float:
        """The most."""
        return max(size for _, size in self.looks)

    @property
    def growth_mb(self) -> float:
        """What is held in its last minute, beyond that in its second: the first is its beginning.

        Both are medians; in a life of less than four minutes, of quarters.
        """
        over_s = self.looks[-1][0]
        span_s = min(MINUTE_S, over_s / 4)
        before = [size for at_s, size in self.looks if span_s <= at_s <= 2 * span_s]
        after = [size for at_s, size in self.looks if at_s >= over_s - span_s]
        return statistics.median(after) - statistics.median(before or after)


class Lives:
    """One aggregator after another, all with one configuration."""

    def __init__(self, path: Path, settings: dict[str, Any]) -> None:
        """`path` has the directory of the control socket, and gets the configuration and log."""
        self.log = path / "aggregator.log"
        self.lives: list[Life] = []
        self.cpu_s = 0.0
        self._configuration = path / "aggregator.yaml"
        self._configuration.write_text(yaml.safe_dump(settings))
        self._client = ControlClient(path / CONTROL)
        self._began_s = 0.0
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start one, and wait until it is ready."""
        command = [sys.executable, "-m", "flowvis.cli.aggregator", "--config"]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen([*command, str(self._configuration)], stderr=log)
        self._began_s = time.monotonic()
        deadline = self._began_s + START_S
        while not self.status().get("ready"):
            assert self._process.poll() is None, f"the aggregator ended: {self.log.read_text()}"
            assert time.monotonic() < deadline, "the aggregator is not ready"
            time.sleep(POLL_S)
        self.lives.append(Life())

    def look(self) -> float:
        """Note what it holds, in MB; it has to be alive."""
        assert self._process is not None
        assert self._process.poll() is None, f"the aggregator ended: {self.log.read_text()}"
        size = resident_mb(self._process.pid)
        self.lives[-1].looks.append((time.monotonic() - self._began_s, size))
        return size

    def status(self) -> dict[str, Any]:
        """What it says of itself; nothing while it does not answer."""
        with contextlib.suppress(FlowvisError, OSError, ValueError):
            status: dict[str, Any] = self._client.get("status")
            return status
        return {}

    def stages(self) -> list[dict[str, Any]]:
        """Its books."""
        return list(self.status().get("ledger", {}).get("stages", ()))

    def held_nothing(self, patience_s: float) -> float | None:
        """Wait until it holds nothing; return how long (s) that took, None when it did not come."""
        began = time.monotonic()
        while (passed_s := time.monotonic() - began) < patience_s:
            stages = self.stages()
            if stages and not any(stage["held"] for stage in stages):
                return round(passed_s, 1)
            time.sleep(1)
        return None

    def kill(self) -> None:
        """End it at once."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            self._waited()

    def end(self) -> int:
        """End it in order; return its exit code."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return self._waited()

    def _waited(self) -> int:
        """Wait for its end, and note what CPU it took."""
        assert self._process is not None
        _, status, usage = os.wait4(self._process.pid, 0)
        self._process.returncode = os.waitstatus_to_exitcode(status)
        self.cpu_s += usage.ru_utime + usage.ru_stime
        return self._process.returncode

    def memory(self) -> dict[str, Any]:
        """What its lives held, in MB; `rss_growth_mb` is the larger of within and between."""
        lives = [life for life in self.lives if life.looks]
        within = [round(life.growth_mb, 1) for life in lives]
        between = lives[-1].peak_mb - lives[0].peak_mb
        return {
            "rss_growth_mb": round(max(*within, between), 1),
            "life_growths_mb": within,
            "life_peaks_mb": [life.peak_mb for life in lives],
            "life_ends_mb": [life.looks[-1][1] for life in lives],
        }


def losses(stages: list[dict[str, Any]]) -> dict[str, int]:
    """Return what books name as lost, by stage and reason."""
    named = {}
    for stage in stages:
        for word, count in stage["dropped"].items():
            reason = reason_of(stage["stage"], word)
            if count and (reason is None or reason.is_loss):
                named[f"{stage['stage']}: {word}"] = count
    return named


class Progress:
    """A line a minute on standard error: how it goes."""

    def __init__(self, lives: Lives) -> None:
        self._lives = lives
        self._began_s = self._said_s = time.monotonic()
        self._life, self._received = 0, 0

    def look(self) -> None:
        """Say it when it is time."""
        now_s = time.monotonic()
        if now_s - self._said_s < MINUTE_S or not (status := self._lives.status()):
            return
        stages = status["ledger"]["stages"]
        received = stages[0]["received"]
        if self._life != len(self._lives.lives):  # its books begin anew
            self._life, self._received = len(self._lives.lives), 0
        rate = (received - self._received) / (now_s - self._said_s)
        self._said_s, self._received = now_s, received
        waiting = sum(node["waiting"] or 0 for node in status["nodes"])
        held = sum(stage["held"] for stage in stages)
        parts = [
            f"{rate:,.0f} records/s",
            f"RSS {self._lives.look():,.0f} MB",
            f"exporters hold {waiting:,}, the aggregator {held:,}",
            f"lost {sum(losses(stages).values()):,}",
            *_store(status.get("store") or {}),
        ]
        print(f"{(now_s - self._began_s) / 60:.0f} min: {', '.join(parts)}", file=sys.stderr)


def _store(store: dict[str, Any]) -> list[str]:
    """Say how full its disk is, and what went."""
    disks = [disk for disk in store.get("disks", ()) if disk["totalBytes"]]
    used = [f"{1 - disk['freeBytes'] / disk['totalBytes']:.0%}" for disk in disks]
    return [f"disk {', '.join(used)}, {store['droppedRecords']:,} dropped"] if used else []
