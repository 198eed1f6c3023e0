"""A real aggregator under attack, in a cgroup of 2 GiB: what a good exporter notices of it.

For each attack an aggregator is started with its defaults (but for the active timeout), and a
witness (`benchmarks.witness`): a good exporter, newcomers, a sink, probes. First nothing else
happens for some seconds, then the attack goes on, in a process of its own with little priority: the
attacker's CPU is not ours. At last the attack is ended, and all good records are to be at the sink,
the books are to balance, and the process is to be alive and then to stop in good order.

`latency_ratio` is with to without the attack, the worse of the medians and the 95th percentiles of
the good exporter's records, and of the medians of newcomers. `peak_mb` is the larger of the
cgroup's and the process's own (VmHWM: pages that others share are counted only there).
Over UDP a record may be lost in the kernel's queue, which is one for all senders: there the latency
is of those that came, and `missing` has to be in `missing_named`, what the aggregator says by their
sequence numbers.

`python -m benchmarks.hostile NAME...` runs some of the attacks; without a name also those on doors
that go on until they are killed, of which there are many of a kind.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from benchmarks.aggregator_process import settings_in
from benchmarks.attacks import Attack, Findings, Store, Target, attacks
from benchmarks.clickhouse_server import running_server
from benchmarks.confined import Confinement, confinement
from benchmarks.peer import DatagramSession, Dial, connect, context
from benchmarks.usage import peak_mb
from benchmarks.witness import Latency, Seen, Stream, Witness, sink
from flowvis.cli.client import ControlClient
from flowvis.errors import FlowvisError

LIMIT_MB = 2048
ACTIVE_TIMEOUT_S = 2.0
CALM_S = 5.0
WARM_UP_S = 1.0
ATTACK_S = 8.0
BEGIN_S = 60.0
SETTLE_S = 30.0
STOP_S = 40.0
GOOD = "127.0.0.1"
"""Where good exporters send from."""
NICE = ["nice", "-n", "5"]


def run() -> dict[str, Any]:
    return measured([name for name, attack in attacks().items() if not attack.endless])


def measured(names: list[str]) -> dict[str, Any]:
    """Run these attacks, one after the other."""
    wall, used = time.monotonic(), os.times()
    found = {}
    for name in names:
        found[name] = _under(attacks()[name])
        print(name, json.dumps(found[name]), file=sys.stderr, flush=True)
    now = os.times()
    children = now.children_user + now.children_system
    return {
        "records": sum(result["records"] for result in found.values()),
        "cpu_seconds": round(children - used.children_user - used.children_system, 1),
        "wall_seconds": round(time.monotonic() - wall, 1),
        "worst_latency_ratio": max(result["latency_ratio"] for result in found.values()),
        "peak_mb": max(result["peak_mb"] for result in found.values()),
        "limit_mb": LIMIT_MB,
        "not_held": [name for name, result in found.items() if not result["held"]],
        "attacks": found,
    }


def _under(attack: Attack) -> dict[str, Any]:
    """Run one attack against an aggregator of its own."""
    with contextlib.ExitStack() as stack:
        path = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="flowvis-")))
        room = stack.enter_context(confinement(LIMIT_MB))
        aggregator = stack.enter_context(_aggregator(path, room, attack))
        return aggregator.attacked()


class _Aggregator:
    """The daemon, and what is around it."""

    def __init__(
        self,
        attack: Attack,
        room: Confinement,
        process: "subprocess.Popen[bytes]",
        target: Target,
        seen: list[Seen],
    ) -> None:
        self._attack, self._room, self._process, self._target = attack, room, process, target
        self._client = ControlClient(target.control)
        self._seen = seen
        self._resident_mb = 0.0

    def attacked(self) -> dict[str, Any]:
        """Measure without and with the attack."""
        target = self._target
        dial = _dialled(target, self._attack)
        hears = not self._attack.datagrams
        witness = Witness(dial, target.status_port, self._seen, hears=hears)
        watch = threading.Event()
        threading.Thread(target=self._watch, args=(watch,), daemon=True).start()
        time.sleep(WARM_UP_S)
        calm = time.monotonic()
        time.sleep(CALM_S)
        assert witness.steady.there, "no record of the good exporter has come to the sink"
        calm_peak_mb = self._room.peak_mb()
        with self._begun() as attacker:
            began = time.monotonic()
            self._last(ATTACK_S)
            ended = time.monotonic()
            findings = _findings(attacker)
        witness.end()
        balanced = self._settled(witness)
        now = time.monotonic()
        watch.set()
        lossy = self._attack.datagrams
        named = self._named() if lossy else 0
        # Of a newcomer's one record over UDP no later one tells.
        missing = witness.steady.missing() if lossy else witness.missing()
        unanswered, longest = witness.probes.between(began, min(ended, now))
        code = self._stop()
        result = _compared(witness, calm, began, ended, now, lossy=lossy) | {
            "peak_mb": max(self._room.peak_mb(), self._resident_mb),
            "calm_peak_mb": calm_peak_mb,
            "resident_peak_mb": self._resident_mb,
            "probes_unanswered": 0 if self._attack.ends else unanswered,
            "longest_probe_ms": round(1000 * longest),
            "newcomers_refused": witness.newcomers.refused,
            "missing": 0 if self._attack.ends else missing,
            "newcomers_missing": witness.new.missing(),
            "missing_named": named,
            "balanced": balanced,
            "exit_code": code,
            "records": len(witness.steady.there) + len(witness.new.there),
            "findings": findings,
        }
        if self._attack.ends:
            result["latency_ratio"] = 1.0  # there is nobody to wait for
        return result | {"held": _held(result)}

    @contextlib.contextmanager
    def _begun(self) -> "Iterator[subprocess.Popen[str]]":
        values = asdict(self._target) | {"directory": str(self._target.directory)}
        command = [*NICE, sys.executable, "-m", "benchmarks.attacks", self._attack.name]
        pipe = subprocess.PIPE
        process = subprocess.Popen(
            [*command, json.dumps(values)], stdin=pipe, stdout=pipe, text=True
        )
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "begun\n"
            yield process
        finally:
            process.kill()
            process.communicate()

    def _last(self, seconds: float) -> None:
        """Let an attack go on, or until the daemon ends by it."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)

    def _settled(self, witness: Witness) -> bool:
        """Wait until all good records have come; return whether the books balance."""
        balanced = self._attack.ends
        deadline = time.monotonic() + SETTLE_S
        while time.monotonic() < deadline and self._process.poll() is None:
            with contextlib.suppress(FlowvisError, OSError, ValueError):
                balanced = self._client.get("ledger")["balanced"]
                if balanced and not witness.missing():
                    break
            time.sleep(0.2)
        return balanced

    def _named(self) -> int:
        """Records of good exporters that never came, as the aggregator says: by their sequence."""
        sessions = self._client.get("status")["sessions"]
        return sum(one["lost"] for one in sessions if one["peer"].startswith(f"{GOOD}:"))

    def _stop(self) -> int:
        if not self._attack.ends and self._process.poll() is None:
            self._process.terminate()
        try:
            return self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            return -1

    def _watch(self, over: threading.Event) -> None:
        """Keep the process's peak: it cannot be asked when it has ended."""
        while not over.wait(0.1):
            with contextlib.suppress(OSError, ValueError):
                self._resident_mb = peak_mb(self._process.pid)


def _dialled(target: Target, attack: Attack) -> Dial:
    """How good exporters begin a session."""
    if attack.datagrams:
        return partial(DatagramSession, target.port)
    return partial(connect, target.port, context(target.directory), patience_s=5)


def _findings(attacker: "subprocess.Popen[str]") -> Findings:
    """End an attack and return what it found."""
    try:
        out, _ = attacker.communicate("", timeout=30)
        found: Findings = json.loads(out)
    except (subprocess.TimeoutExpired, ValueError):
        return {"held": False, "failed": "the attack itself"}
    return found


def _compared(
    witness: Witness, calm: float, began: float, ended: float, now: float, *, lossy: bool
) -> dict[str, Any]:
    """Latencies without and with the attack, and the worst of their ratios."""
    steady, new = witness.steady, witness.new
    without = Latency.of(steady.latencies(calm, began, now, lossy=lossy))
    while_attacked = Latency.of(steady.latencies(began, ended, now, lossy=lossy))
    new_without = Latency.of(new.latencies(calm, began, now, lossy=lossy))
    new_while = Latency.of(new.latencies(began, ended, now, lossy=lossy))
    pairs = (
        (while_attacked.median, without.median),
        (while_attacked.p95, without.p95),
        (new_while.median, new_without.median),
    )
    return {
        "latency_ratio": round(max(after / before for after, before in pairs if before), 2),
        "median_s": [without.median, while_attacked.median],
        "p95_s": [without.p95, while_attacked.p95],
        "newcomers_median_s": [new_without.median, new_while.median],
    }


def _held(result: dict[str, Any]) -> bool:
    return bool(
        result["latency_ratio"] <= 2
        and result["peak_mb"] < LIMIT_MB
        and result["missing"] <= result["missing_named"]
        and not result["probes_unanswered"]
        and result["balanced"]
        and result["exit_code"] == 0
        and result["findings"].get("held", True)
    )


@contextlib.contextmanager
def _aggregator(path: Path, room: Confinement, attack: Attack) -> Iterator[_Aggregator]:
    with contextlib.ExitStack() as stack:
        collector, seen = stack.enter_context(sink())
        settings = _settings(path, collector.port) | attack.prepare(path)
        if attack.datagrams:
            settings["aggregatorTransportProtocol"] = "UDP"
        store_pid = 0
        if attack.store is Store.SERVER:
            server = stack.enter_context(running_server(path / "clickhouse"))
            store_pid = server.pid
            url = f"tcp://127.0.0.1:{server.port}"
            settings["clickHouse"] = {"enable": True, "databaseURL": url, "commitInterval": "1s"}
        elif attack.store is Store.EMBEDDED:
            settings["clickHouse"] = {"enable": True, "databaseURL": f"embedded://{path}/store"}
        (path / "aggregator.yaml").write_text(yaml.safe_dump(settings))
        program = [sys.executable, "-m", "flowvis.cli.aggregator"]
        log = stack.enter_context((path / "log").open("wb"))
        process = subprocess.Popen(
            room.command([*program, "--config", str(path / "aggregator.yaml")]),
            stdin=subprocess.DEVNULL,
            stderr=log,
        )
        stack.callback(process.wait)
        stack.callback(process.kill)
        status = _ready(ControlClient(path / "control.sock"), process, sink=attack.sink)
        if not attack.sink:
            Stream(path / "control.sock", collector.networks)
        target = Target(status["port"], status["statusPort"], process.pid, store_pid, path)
        yield _Aggregator(attack, room, process, target, seen)


def _settings(path: Path, sink_port: int) -> dict[str, Any]:
    """An aggregator that writes to the sink."""
    sink_address = {"enable": True, "address": f"127.0.0.1:{sink_port}:tcp"}
    return settings_in(path, "node", ACTIVE_TIMEOUT_S) | {"flowCollector": sink_address}


def _ready(
    client: ControlClient, process: "subprocess.Popen[bytes]", *, sink: bool
) -> dict[str, Any]:
    deadline = time.monotonic() + BEGIN_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        with contextlib.suppress(FlowvisError, OSError, ValueError):
            status: dict[str, Any] = client.get("status")
            problems = [each["problem"] for each in status["destinations"]]
            if status["ready"] and (not sink or not any(problems)):
                return status
        time.sleep(0.05)
    raise RuntimeError(f"the aggregator does not start; exit code {process.poll()}")


if __name__ == "__main__":
    print(json.dumps(measured(sys.argv[1:] or list(attacks()))))
