import asyncio
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from exporter.collector import Collector
from exporter.test_export import deltas
from flowvis.cli import exporter
from flowvis.conntrack.sources.sysctls import ROOT
from flowvis.transport.certificates import issue_ca, issue_client, issue_server
from flowvis.transport.tls import TlsFiles
from inventory.kubernetes_objects import node, pod
from ports import free_port
from waiting import PATIENCE_S, block_until, until


def write(tmp_path: Path, settings: dict[str, Any]) -> str:
    path = tmp_path / "flow-exporter.conf"
    state = {"directory": str(tmp_path / "state")}
    path.write_text(yaml.safe_dump({"state": state, **settings}))
    return str(path)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        exporter.main(["--version"])
    assert capsys.readouterr().out.startswith("flow-exporter ")


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        exporter.main(["--help"])
    shown = capsys.readouterr().out
    example = shown.partition("own connections:\n")[2].partition("\n\n")[0]
    assert yaml.safe_load(example)["flowExporter"] == {
        "flowCollectorAddr": "collector.example:4739:tls"
    }


def test_check_prints_what_applies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = write(tmp_path, {"nodeName": "node-7"})
    assert exporter.main(["check", "--config", config]) == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed["nodeName"] == "node-7"
    assert printed["flowExporter"]["flowPollInterval"] == "5s"


def test_check_names_every_problem(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = write(tmp_path, {"nodename": "x", "flowExporter": {"flowPollInterval": "1"}})
    assert exporter.main(["check", "--config", config]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert "did you mean nodeName?" in "".join(lines)


def test_a_missing_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert exporter.main(["--config", str(tmp_path / "absent")]) == 1
    assert "absent: No such file" in capsys.readouterr().err


class Daemon:
    """The command as a process of its own."""

    def __init__(self, config: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "flowvis.cli.exporter", "--config", config],
            stderr=subprocess.PIPE,
            text=True,
        )

    def look(self) -> None:
        """SIGHUP: its file has changed."""
        self.process.send_signal(signal.SIGHUP)

    def stop(self) -> tuple[int, str]:
        """SIGTERM; the exit code and the log."""
        self.process.send_signal(signal.SIGTERM)
        _, log = self.process.communicate(timeout=PATIENCE_S)
        return self.process.returncode, log

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()


@pytest.fixture
def daemons() -> Iterator[list[Daemon]]:
    started: list[Daemon] = []
    yield started
    for daemon in started:
        daemon.end()


def get(port: int, page: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/{page}", timeout=PATIENCE_S) as answer:
        return str(answer.read().decode())


def until_answered(port: int, page: str) -> str:
    """The page of a daemon that is starting."""
    return block_until(lambda: get(port, page), despite=(OSError,))


def let_connections_last() -> None:
    """Have the kernel remember datagrams for longer than a test takes, not for half a minute."""
    for name in ("udp_timeout", "udp_timeout_stream"):
        (ROOT / f"nf_conntrack_{name}").write_text("3600")


def until_polled(port: int) -> None:
    """Wait until a daemon has read the kernel's table, and so made the kernel count."""
    count = "antrea_agent_conntrack_poll_cycle_duration_seconds_count"
    block_until(
        lambda: re.search(rf"^{count} [1-9]", get(port, "metrics"), re.MULTILINE),
        despite=(OSError,),
    )


@pytest.mark.kernel
async def test_from_the_kernel_to_the_collector(
    tracked: None, tmp_path: Path, daemons: list[Daemon]
) -> None:
    status = free_port()
    cluster = [pod("server", "127.0.0.1"), node("node-1", "192.0.2.1")]
    (tmp_path / "cluster.yaml").write_text(yaml.safe_dump_all(cluster))
    async with Collector() as collector:
        config = write(
            tmp_path,
            {
                "flowExporter": {
                    "flowCollectorAddr": f"{collector.address}",
                    "flowPollInterval": "200ms",
                    "protocolFilter": ["udp"],
                },
                "nodeName": "node-1",
                "conntrack": {"loopback": True},
                "inventory": {"files": [str(tmp_path / "cluster.yaml")]},
                "status": {"port": status},
                "log": {"format": "json"},
            },
        )
        daemons.append(Daemon(config))
        await until(lambda: collector.sessions == 1)
        await asyncio.to_thread(until_polled, status)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.bind(("127.0.0.1", 0))
            client.sendto(bytes(72), ("127.0.0.1", 9))
            port = client.getsockname()[1]
        metrics = await asyncio.to_thread(get, status, "metrics")
        ready = await asyncio.to_thread(get, status, "readyz")
        code, log = await asyncio.to_thread(daemons[0].stop)
        assert deltas(collector.rows)[port] == 100
        row = next(row for row in collector.rows if row["sourceTransportPort"] == port)
    assert (code, ready) == (0, "ok\n"), log
    assert (row["sourcePodName"], row["sourceNodeName"], row["flowType"]) == ("server", "node-1", 1)
    assert "antrea_agent_conntrack_poll_cycle_duration_seconds_bucket" in metrics
    assert "antrea_agent_flow_collector_reconnection_count 1.0" in metrics
    assert 'flowvis_ledger_imbalance_records{stage="records"} 0.0' in metrics
    assert '"level": "error"' not in log
    assert "Traceback" not in log


@pytest.mark.kernel
async def test_a_restart_loses_and_repeats_nothing(
    tracked: None, tmp_path: Path, daemons: list[Daemon]
) -> None:
    for name in ("nf_conntrack_acct", "nf_conntrack_timestamp"):  # the first daemon may be too late
        (ROOT / name).write_text("1")
    let_connections_last()
    async with Collector() as collector:
        exported = {
            "flowCollectorAddr": f"{collector.address}",
            "flowPollInterval": "200ms",
            "protocolFilter": ["udp"],
        }
        config = write(
            tmp_path,
            {"flowExporter": exported, "conntrack": {"loopback": True}, "status": {"port": 0}},
        )
        clients = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2)]

        async def sessions(count: int) -> None:
            await until(lambda: collector.sessions == count)

        for session in (1, 2, 3):
            daemons.append(Daemon(config))
            await sessions(session)
            clients[1].sendto(bytes(72), ("127.0.0.1", 9))
            if session == 1:
                clients[0].sendto(bytes(72), ("127.0.0.1", 9))
            await asyncio.sleep(0.5)  # some polls
            code, log = await asyncio.to_thread(daemons[-1].stop)
            assert code == 0, log
            clients[1].sendto(bytes(72), ("127.0.0.1", 9))  # while nobody looks
        idle, busy = (client.getsockname()[1] for client in clients)
        for client in clients:
            client.close()
        assert deltas(collector.rows)[idle] == 100
        assert deltas(collector.rows)[busy] == 500
        assert max(r["octetTotalCount"] for r in collector.rows) == 500


@pytest.mark.kernel
def test_over_mutual_tls(tracked: None, tmp_path: Path, daemons: list[Daemon]) -> None:
    ca = issue_ca()
    ca.write(tmp_path, "ca")
    client = issue_client(ca, "node-1").write(tmp_path, "client")
    server = issue_server(ca, ["127.0.0.1"]).write(tmp_path, "server")
    context = TlsFiles(tmp_path / "ca.crt", *server).server_context()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        files = {"ca": tmp_path / "ca.crt", "certificate": client[0], "key": client[1]}
        config = write(
            tmp_path,
            {
                "flowExporter": {"flowCollectorAddr": f"127.0.0.1:{listener.getsockname()[1]}:tls"},
                "tls": {name: str(path) for name, path in files.items()},
                "status": {"port": 0},
            },
        )
        daemons.append(Daemon(config))
        listener.settimeout(PATIENCE_S)
        plain, _ = listener.accept()
        with context.wrap_socket(plain, server_side=True) as stream:
            assert stream.recv(2) == (10).to_bytes(2, "big")  # IPFIX's version
            daemons[0].process.send_signal(signal.SIGTERM)
            while stream.recv(1 << 16):
                pass
    _, log = daemons[0].process.communicate(timeout=PATIENCE_S)
    assert daemons[0].process.returncode == 0, log


@pytest.mark.kernel
def test_a_stop_without_a_collector_is_graceful_too(
    tracked: None, tmp_path: Path, daemons: list[Daemon]
) -> None:
    status = free_port()
    config = write(
        tmp_path,
        {
            "flowExporter": {"flowCollectorAddr": f"127.0.0.1:{free_port()}:tcp"},
            "status": {"port": status},
            "gracePeriod": "3s",
        },
    )
    daemons.append(Daemon(config))
    until_answered(status, "healthz")
    code, log = daemons[0].stop()
    assert code == 0, log
    assert "no session" in log


@pytest.mark.kernel
def test_without_the_right_it_says_what_to_do(
    tracked: None, tmp_path: Path, daemons: list[Daemon]
) -> None:
    config = write(
        tmp_path, {"status": {"port": 0}, "flowExporter": {"flowCollectorAddr": "x:1:tcp"}}
    )
    command = [sys.executable, "-m", "flowvis.cli.exporter", "--config", config]
    without = ["setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin"]
    run = subprocess.run([*without, *command], capture_output=True, text=True, timeout=PATIENCE_S)
    assert run.returncode == 1
    assert "CAP_NET_ADMIN" in run.stderr


def test_switched_off_it_only_answers_probes(tmp_path: Path, daemons: list[Daemon]) -> None:
    status = free_port()
    config = write(tmp_path, {"flowExporter": {"enable": False}, "status": {"port": status}})
    daemons.append(Daemon(config))
    assert "flowvis_build_info" in until_answered(status, "metrics")
    code, log = daemons[0].stop()
    assert code == 0, log
    assert "nothing is exported" in log
