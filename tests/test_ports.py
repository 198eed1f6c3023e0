"""Ports that tests give to servers."""

import random
import subprocess
import sys
from pathlib import Path

import pytest

import ports

OTHER = """
import random, ports
ports._choice = random.Random(17)
print(*(ports.free_port() for _ in range(20)), flush=True)
input()
"""


def test_processes_side_by_side_give_ports_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing listens on them yet: what is started takes its time, and is killed in between."""
    monkeypatch.setattr(ports, "_choice", random.Random(17))
    with subprocess.Popen(
        [sys.executable, "-c", OTHER],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parent,
    ) as other:  # fmt: skip
        assert other.stdout is not None
        theirs = set(map(int, other.stdout.readline().split()))
        ours = {ports.free_port() for _ in range(20)}
        other.communicate("\n")
    assert (len(theirs), len(ours), theirs & ours) == (20, 20, set())
