"""A demo that stays, and a shell to it."""

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from waiting import block_until

pytestmark = [pytest.mark.kernel, pytest.mark.slow]

FLOWCTL = [sys.executable, "-m", "flowvis.cli.flowctl"]


@pytest.fixture(scope="module")
def demo() -> Iterator[tuple[int, str]]:
    """The PID of a lab's first process, with some flows in its store; and the console's link."""
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
        text = "".join(said)
        assert "web:http" in text
        link = re.search(r"http://127\.0\.0\.1:\d+/#token=\S+", text)
        assert link is not None, text
        (unshare,) = children(process.pid)
        (init,) = children(unshare)
        yield init, link[0]
        process.send_signal(signal.SIGINT)
        assert process.wait(15) == 128 + signal.SIGINT


@pytest.fixture
def lab(demo: tuple[int, str]) -> int:
    return demo[0]


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def shell(pid: int, commands: str, *host: str) -> subprocess.CompletedProcess[str]:
    command = [*FLOWCTL, "lab", "shell", "--pid", str(pid), *host]
    return subprocess.run(command, input=commands, capture_output=True, text=True, timeout=30)


def test_a_browser_of_this_machine_is_let_in_by_the_link(demo: tuple[int, str]) -> None:
    base, _, token = demo[1].partition("/#token=")
    with urlopen(f"{base}/", timeout=20) as page:  # noqa: S310
        assert b"<title>flowvis</title>" in page.read()
    with pytest.raises(HTTPError, match="401"):
        urlopen(f"{base}/api/v1/me", timeout=20)  # noqa: S310
    request = Request(f"{base}/api/v1/query?by=service&measure=octets")  # noqa: S310
    request.add_header("Authorization", f"Bearer {token}")
    with urlopen(request, timeout=20) as answer:  # noqa: S310
        services = [row[0] for row in json.load(answer)["rows"]]
    assert any("shop/web:http" in service for service in services)


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
