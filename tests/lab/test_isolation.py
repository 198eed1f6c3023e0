"""Nothing of the lab outlives its command, however that ends."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from flowvis.errors import SystemRefused
from flowvis.lab import isolation
from flowvis.lab.options import Options
from flowvis.lab.plan import NODES, OUTSIDE, hosts
from waiting import PATIENCE_S, block_until

pytestmark = pytest.mark.kernel

COMMAND = [sys.executable, "-m", "flowvis.cli.flowctl", "lab", "run", "--duration", "60s"]
HOSTS = (OUTSIDE, *(node.name for node in NODES), *hosts())
BUSY = "Traffic for"
"""What the lab says when everything runs: network, daemons, connections."""


def processes() -> dict[int, tuple[int, str]]:
    """Parent and start time of every process, by PID."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if fields[0] != "Z":
                found[int(entry.name)] = (int(fields[1]), fields[19])
    return found


def descendants(pid: int) -> dict[int, str]:
    """Start times of all that a process has started, by PID."""
    table = processes()
    found = {pid: table[pid][1]}
    while more := {p: start for p, (up, start) in table.items() if up in found and p not in found}:
        found |= more
    return found


def left_over(of: dict[int, str]) -> set[int]:
    alive = processes()
    return {pid for pid, start in of.items() if pid in alive and alive[pid][1] == start}


def traces() -> dict[str, object]:
    """What a lab could leave on the host, besides processes."""
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    links = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True)
    return {
        "mounts": [line for line in mounts if "flowvis" in line],
        "links": [
            line for line in links.stdout.splitlines() if "fabric" in line or "to-node" in line
        ],
        "netns": [name for name in HOSTS if Path("/run/netns", name).exists()],
        "files": Path("/run/flowvis").exists(),
    }


@contextmanager
def lab(directory: Path) -> Iterator[subprocess.Popen[str]]:
    """A lab in the middle of its traffic."""
    environment = {**os.environ, "TMPDIR": str(directory), "HOME": str(directory)}
    with subprocess.Popen(
        COMMAND,
        env=environment,
        cwd=directory,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        seen = []
        for line in process.stdout:
            seen.append(line)
            if BUSY in line:
                break
        else:
            pytest.fail("".join(seen))
        time.sleep(0.5)  # into the traffic
        try:
            yield process
        finally:
            process.kill()


def assert_gone(started: dict[int, str]) -> None:
    block_until(lambda: not left_over(started), lambda: f"still there: {left_over(started)}")


@pytest.mark.parametrize(
    "numbers",
    [
        (signal.SIGKILL,),
        (signal.SIGTERM,),
        (signal.SIGINT, signal.SIGINT),
        (signal.SIGTERM, signal.SIGINT, signal.SIGHUP),
    ],
)
def test_signals_to_the_command_leave_nothing(
    tmp_path: Path, numbers: tuple[signal.Signals, ...]
) -> None:
    before = traces()
    with lab(tmp_path) as process:
        started = descendants(process.pid)
        assert len(started) >= 6, "command, unshare, init, three daemons"
        for number in numbers:
            process.send_signal(number)
        assert process.stdout is not None
        said = process.stdout.read()
        code = process.wait(timeout=PATIENCE_S)
        # Of two at once the kernel may deliver either first.
        assert code in ([-9] if signal.SIGKILL in numbers else [128 + it for it in numbers])
        assert "Traceback" not in said, said[said.index("Traceback") :]
        assert_gone(started)
    assert traces() == before
    assert list(tmp_path.iterdir()) == []


def test_the_death_of_what_is_between_leaves_nothing(tmp_path: Path) -> None:
    with lab(tmp_path) as process:
        started = descendants(process.pid)
        (unshare,) = (pid for pid, (up, _) in processes().items() if up == process.pid)
        os.kill(unshare, signal.SIGKILL)
        assert process.wait(timeout=PATIENCE_S) != 0
        assert_gone(started)
    assert list(tmp_path.iterdir()) == []


def test_options_survive_the_way_in() -> None:
    options = Options(duration_s=1.5, scenarios=("udp", "dns"), events=False, faults=("ca",))
    assert Options.from_json(options.to_json()) == options


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(isolation, "environment", lambda: {"PATH": "/nowhere"})
    with pytest.raises(SystemRefused, match=r"apt-get install .*nftables"):
        isolation.probe()
