"""flowctl asks the aggregator of a cluster, through a port that the API server forwards."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from flowvis.cli.flowctl import main
from flowvis.transport.certificates import issue_ca

from .asked import ADMIN, SHOP, Asked, asked, connection
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
