"""flowctl asks the aggregator of a cluster, through a port that the API server forwards."""

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import cast

import pytest

from flowvis.cli import cluster as cluster_module
from flowvis.cli.client import Client, Event
from flowvis.cli.cluster import Cluster
from flowvis.cli.feed import Feed
from flowvis.cli.flowctl import main
from flowvis.errors import ApiError, SystemRefused
from flowvis.transport.certificates import issue_ca, issue_server
from flowvis.transport.tls import TlsFiles
from waiting import PATIENCE_S, block_until

from .asked import ADMIN, SERVICE_NAME, SHOP, Asked, asked, connection
from .cluster import ApiServer, pod, serving

NAMESPACE = "flow-aggregator"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asked]:
    with asked(tmp_path_factory.mktemp("asked")) as found:
        found.tell(connection(1, "shop/a", "shop/b", 10), connection(2, "other/a", "other/b", 10))
        yield found


@pytest.fixture
def cluster(store: Asked, tmp_path: Path) -> Iterator[ApiServer]:
    """A cluster whose users' tokens the aggregator knows; its kubeconfig is `tmp_path/config`."""
    pods = [
        pod("a-waiting", ready=False),
        pod("b-ready"),
        {**pod("c"), "status": {"phase": "Failed"}},
    ]
    ports = {("b-ready", 10348): store.api_port}
    server = ApiServer(ADMIN, NAMESPACE, pods, store.ca.read_text(), ports)
    with serving(server):
        (tmp_path / "config").write_text(server.kubeconfig())
        yield server


@pytest.fixture
def here(tmp_path: Path) -> list[str]:
    return ["--kubeconfig", str(tmp_path / "config"), "--context", "here"]


def test_a_question_goes_through_a_forwarded_port(
    cluster: ApiServer, here: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*here, "map", "--since", "10m"]) == 0
    assert "shop/a" in capsys.readouterr().out
    assert cluster.forwarded
    assert main([*here, "flows", "--since", "10m"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_a_long_answer_is_whole(
    cluster: ApiServer, here: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    sql = "SELECT number, repeat('x', 100) FROM numbers(9000)"
    assert main([*here, "sql", sql, "-o", "csv"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 9001


def test_as_a_plugin_the_current_context_is_asked(
    cluster: ApiServer,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / "current"
    path.write_text(
        cluster.kubeconfig().replace("current-context: elsewhere", "current-context: here")
    )
    monkeypatch.setattr("sys.argv", ["/usr/bin/kubectl-flowvis"])
    assert main(["--kubeconfig", str(path), "--token-file", "/none", "flows"]) == 1
    assert "--token-file /none" in capsys.readouterr().err
    monkeypatch.setenv("KUBECONFIG", str(path))
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(path))
    assert main(["flows", "--since", "10m"]) == 0
    assert "shop/a" in capsys.readouterr().out


def test_the_users_token_says_what_may_be_seen(
    cluster: ApiServer, here: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.token = SHOP
    (tmp_path / "config").write_text(cluster.kubeconfig())
    assert main([*here, "map", "--since", "10m"]) == 0
    shown = capsys.readouterr().out
    assert "shop/a" in shown
    assert "other" not in shown


def test_a_token_in_a_file_of_its_own_may_end_with_a_line(
    cluster: ApiServer, here: list[str], tmp_path: Path
) -> None:
    (tmp_path / "token").write_text(f"{cluster.token}\n")
    (tmp_path / "config").write_text(cluster.kubeconfig(tokenFile=str(tmp_path / "token")))
    assert main([*here, "map", "--since", "10m"]) == 0


@pytest.mark.parametrize("text", ["{", "a", "[]", "clusters: 5"])
def test_what_is_no_kubeconfig_is_said_in_a_line(
    text: str, tmp_path: Path, here: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config").write_text(text)
    assert main([*here, "status"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "is no kubeconfig" in line


def test_a_kubeconfig_that_is_not_there_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = tmp_path / "missing"
    assert main(["--kubeconfig", str(missing), "top"]) == 1
    assert f"kubeconfig {missing}: " in capsys.readouterr().err
    monkeypatch.setenv("KUBECONFIG", f"{missing}:{missing}.too")
    assert main(["--context", "prod", "top"]) == 1
    assert f"kubeconfig {missing}:{missing}.too: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("what", "text"),
    [
        ("pods", "you may not list the Pods of namespace flow-aggregator"),
        ("configmaps", "you may not read the ConfigMap flow-aggregator/flow-aggregator-ca"),
        ("portforward", "you may not forward port 10348 of Pod flow-aggregator/b-ready"),
    ],
)
def test_a_right_that_is_missing_is_named(
    what: str,
    text: str,
    cluster: ApiServer,
    here: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    cluster.forbidden = {what}
    assert main([*here, "status"]) == 1
    assert text in capsys.readouterr().err


def test_errors_name_what_is_not_there(
    cluster: ApiServer, here: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def error(*arguments: str) -> str:
        assert main([*arguments, "status"]) == 1
        return capsys.readouterr().err

    path = here[1]
    assert "kubeconfig" in error("--kubeconfig", str(tmp_path / "none"))
    assert "moon" in error("--kubeconfig", path, "--context", "moon")
    assert "http://127.0.0.1:1 does not answer" in error("--kubeconfig", path)
    assert "cannot list the Pods of namespace moon" in error(*here, "-n", "moon")
    cluster.pods = [pod("b-ready", port=10349)]
    assert "takes nothing on port 10349: connection refused" in error(*here)
    cluster.pods = []
    assert "there is none (Pods with app.kubernetes.io/name=flow-aggregator)" in error(*here)


def test_an_api_server_that_does_not_answer(
    tmp_path: Path, here: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one behind a load balancer that takes connections for nobody."""
    monkeypatch.setattr(cluster_module, "CONNECT_S", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        (tmp_path / "config").write_text(ApiServer("t", NAMESPACE, url=url).kubeconfig())
        found: list[int] = []
        asking = threading.Thread(target=lambda: found.append(main([*here, "status"])), daemon=True)
        asking.start()
        asking.join(PATIENCE_S)
        assert found == [1]


def test_the_token_goes_to_the_aggregator_alone(
    cluster: ApiServer, here: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """What answers behind the port and has no certificate of the published CA gets nothing."""
    cluster.ca = issue_ca().certificate_pem().decode()
    assert main([*here, "status"]) == 1
    error = capsys.readouterr().err
    assert "its certificate is not trusted" in error
    assert "flow-aggregator-ca" in error
    cluster.ca = ""  # which is no reason to trust whomever the system trusts
    assert main([*here, "status"]) == 1
    assert "no certificates in ca.crt" in capsys.readouterr().err


def test_a_user_without_a_token_is_told_how_to_get_one(
    cluster: ApiServer, here: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    named = replace(cluster, token="")
    (tmp_path / "config").write_text(named.kubeconfig(username="somebody", password="else"))
    assert main([*here, "status"]) == 1
    assert "kubectl create token" in capsys.readouterr().err


@contextmanager
def another(path: Path) -> Iterator[tuple[int, str]]:
    """An aggregator of another CA that only tells its version: its port, and that CA."""
    ca = issue_ca()
    files = TlsFiles(None, *issue_server(ca, [SERVICE_NAME]).write(path, "another"))

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({"version": "another"}).encode())

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        server.socket = files.https_context().wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever).start()
        try:
            yield server.server_port, ca.certificate_pem().decode()
        finally:
            server.shutdown()


@pytest.mark.parametrize("name", ["b-ready", "d-next"])
def test_who_asks_for_long_follows_the_aggregator(
    name: str, cluster: ApiServer, tmp_path: Path
) -> None:
    """To the next CA in the same Pod, and to another Pod where its own is gone."""
    client = Client(Cluster(tmp_path / "config", "here", NAMESPACE, ""))
    assert client.get("status")["version"] != "another"
    with another(tmp_path) as (port, ca):
        cluster.pods, cluster.ports, cluster.ca = [pod(name)], {(name, 10348): port}, ca
        assert client.get("status") == {"version": "another"}


def test_who_asks_for_long_has_the_token_of_now(cluster: ApiServer, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("one")
    (tmp_path / "config").write_text(cluster.kubeconfig(tokenFile=str(token)))
    with another(tmp_path) as (port, ca):
        cluster.ports, cluster.ca, cluster.token = {("b-ready", 10348): port}, ca, "one"
        client = Client(Cluster(tmp_path / "config", "here", NAMESPACE, ""))
        assert client.get("status") == {"version": "another"}
        for now in ("two", "three"):
            token.write_text(now)
            cluster.token = now
            assert client.get("status") == {"version": "another"}
            there = cluster.pods, cluster.ports
            cluster.pods, cluster.ports = [], {}  # it is replaced meanwhile
            with pytest.raises(SystemRefused, match="there is none"):
                client.get("status")
            cluster.pods, cluster.ports = there


def test_a_pod_that_is_being_deleted_is_not_asked(
    cluster: ApiServer, here: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    leaving = pod("a-leaving")
    leaving["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    cluster.pods = [leaving, *cluster.pods]
    assert main([*here, "map", "--since", "10m"]) == 0
    assert "shop/a" in capsys.readouterr().out


def test_a_stream_waits_for_a_pod_that_is_being_replaced() -> None:
    """But not for a right that is missing."""
    ends = iter([ApiError("there is none", 404), ApiError("no answer"), ApiError("may not", 403)])
    asked_after = []

    class Ending:
        def events(self, _: str, __: object, after: str) -> Iterator[Event]:
            asked_after.append(after)
            yield Event("", None, f"{after}1")
            raise next(ends)

    feed = Feed(cast("Client", Ending()), {}, 1)
    with pytest.raises(ApiError, match="may not"):
        list(feed._events({}))
    assert asked_after == ["", "1", "11"]


def test_top_waits_for_a_pod_that_is_being_replaced(
    cluster: ApiServer, here: list[str], tmp_path: Path
) -> None:
    """But not for a right that is missing."""
    out, errors = tmp_path / "out", tmp_path / "errors"
    command = [sys.executable, "-m", "flowvis.cli.flowctl", *here, "top", "--since", "10m"]

    def until(what: Path, text: str, times: int) -> None:
        block_until(lambda: what.read_text().count(text) >= times, errors.read_text)

    with out.open("wb") as file, errors.open("wb") as said:
        watching = subprocess.Popen(
            [*command, "--watch", "50ms", "-o", "csv"], stdout=file, stderr=said
        )
    try:
        until(out, "src.workload", 1)
        (gone,) = cluster.ports
        port = cluster.ports.pop(gone)
        cluster.pods = []
        until(errors, "there is none", 2)
        shown = out.read_text().count("src.workload")
        cluster.pods, cluster.ports = [pod("d-next")], {("d-next", 10348): port}
        until(out, "src.workload", shown + 2)
        cluster.forbidden = {"portforward"}
        assert watching.wait(PATIENCE_S) == 1
        assert "you may not forward port" in errors.read_text()
    finally:
        watching.kill()
        watching.wait()
