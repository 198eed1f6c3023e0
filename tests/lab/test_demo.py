"""A demo that stays: its doors to this machine, and a shell to it."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from waiting import PATIENCE_S, block_until

pytestmark = [pytest.mark.kernel, pytest.mark.slow]

FLOWCTL = [sys.executable, "-m", "flowvis.cli.flowctl"]


@dataclass(frozen=True)
class Demo:
    """One that runs, with some flows in its store."""

    pid: int
    """Of its first process."""
    link: str
    runtime: Path
    """The directory of its control socket."""


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    runtime = tmp_path_factory.mktemp("runtime")
    arguments = ["lab", "demo", "--duration", "3s", "--keep", "--scenario", "service"]
    # A supervisor may ignore it, and what it starts inherits that; what the lab ends does not.
    command = ["env", "--ignore-signal=TERM", *FLOWCTL, *arguments]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "XDG_RUNTIME_DIR": str(runtime)},
    ) as process:
        said = []
        try:
            assert process.stdout is not None
            for line in process.stdout:
                said.append(line)
                if "on a node" in line:
                    break
            text = "".join(said)
            assert "web:http" in text
            link = re.search(r"http://127\.0\.0\.1:\d+/#token=\S+", text)
            assert link is not None, text
            (unshare,) = children(process.pid)
            (init,) = children(unshare)
            yield Demo(init, link[0], runtime)
        finally:  # also where one of these fails: it would stay, and be waited for
            process.send_signal(signal.SIGINT)
            sys.stdout.write("".join(said))
        assert process.wait(PATIENCE_S) == 0
    assert not list(runtime.iterdir())
    # Nothing listens then that was of it; its port may be another program's by now.
    assert not Path(f"/proc/{init}").exists()


@pytest.fixture(scope="module")
def lab(demo: Demo) -> int:
    return demo.pid


def ask(link: str, token: str) -> tuple[int, Any]:
    """Ask the API for its status, as a program of this machine does."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    connection = HTTPConnection(link.removeprefix("http://").partition("/")[0], timeout=PATIENCE_S)
    with closing(connection):
        connection.request("GET", "/api/v1/status", headers=headers)
        answer = connection.getresponse()
        return answer.status, json.load(answer)


def test_the_link_s_token_opens_the_api_and_nothing_else_does(demo: Demo) -> None:
    token = demo.link.rpartition("=")[2]
    code, status = ask(demo.link, token)
    assert (code, status["version"].split()[0]) == (200, "flow-aggregator")
    for wrong in ("", token[:-1], token.swapcase()):
        assert ask(demo.link, wrong)[0] == 401


def test_flowctl_of_this_machine_finds_the_demo(demo: Demo) -> None:
    done = subprocess.run(
        [*FLOWCTL, "sql", "SELECT count() > 0 AS some FROM flows", "-o", "json"],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        env={**os.environ, "XDG_RUNTIME_DIR": str(demo.runtime)},
    )
    assert (json.loads(done.stdout), done.stderr) == ({"some": 1}, "")


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def shell(pid: int, commands: str, *host: str) -> subprocess.CompletedProcess[str]:
    command = [*FLOWCTL, "lab", "shell", "--pid", str(pid), *host]
    return subprocess.run(
        command, input=commands, capture_output=True, text=True, timeout=PATIENCE_S
    )


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
