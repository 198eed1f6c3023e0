"""A demo that stays, and a shell to it."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from waiting import block_until

pytestmark = [pytest.mark.kernel, pytest.mark.slow]

FLOWCTL = [sys.executable, "-m", "flowvis.cli.flowctl"]


@pytest.fixture(scope="module")
def lab() -> Iterator[int]:
    """The PID of a lab's first process, with some flows in its store."""
    command = [*FLOWCTL, "lab", "demo", "--duration", "3s", "--keep", "--scenario", "service"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        said = []
        for line in process.stdout:
            said.append(line)
            if "on a node" in line:
                break
        assert "web:http" in "".join(said)
        (unshare,) = children(process.pid)
        (init,) = children(unshare)
        yield init
        process.send_signal(signal.SIGINT)
        assert process.wait(15) == 128 + signal.SIGINT


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def shell(pid: int, commands: str, *host: str) -> subprocess.CompletedProcess[str]:
    command = [*FLOWCTL, "lab", "shell", "--pid", str(pid), *host]
    return subprocess.run(command, input=commands, capture_output=True, text=True, timeout=30)


def test_flowctl_finds_the_aggregator_of_the_lab(lab: int) -> None:
    def both() -> bool:
        status = json.loads(shell(lab, "flowctl status -o json\n").stdout)
        assert status["ledger"]["balanced"]
        return len(status["sessions"]) == 2

    block_until(both)  # they are renewed every few seconds


def test_queries_see_the_lab_s_store(lab: int) -> None:
    query = "SELECT DISTINCT destinationServicePortName FROM flows"
    answer = shell(lab, f"flowctl sql '{query}'\n").stdout
    assert "shop/web:http" in answer


def test_a_node_is_another_network(lab: int) -> None:
    here, node = (shell(lab, "ip -br address\n", *host).stdout for host in ((), ("node-1",)))
    assert "192.0.2.1/24" in here
    assert "192.0.2.11/24" in node


def test_hosts_that_are_not_there_are_named(lab: int) -> None:
    done = shell(lab, "", "node-7")
    assert done.returncode == 1
    assert "node-7" in done.stderr
    assert "node-2" in done.stderr


def test_a_lab_that_is_not_there_is_no_lab(lab: int) -> None:
    done = shell(1, "")
    assert done.returncode == 1
    assert str(lab) in done.stderr
