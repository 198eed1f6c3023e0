"""The Job that generates passwords, with the rights that its Roles give, and applied again."""

import asyncio
import base64
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from deploy.rendered import of
from deploy.test_manifests import generated
from flowvis.cli.flowctl import main
from flowvis.lab.apiserver import ApiServer, kubeconfig, status

OVERLAY = "overlays/clickhouse"
VERBS = {"GET": "get", "PUT": "update", "POST": "create"}


def allowed(request: web.Request) -> bool:
    """Whether a Role of the Job's has a rule for a request."""
    _, _, _, namespace, resource, *name = request.path.strip("/").split("/")
    for role in of(OVERLAY, "Role"):
        about = role["metadata"]
        if (about["namespace"], about["name"]) != (namespace, "clickhouse-credentials"):
            continue
        for rule in role["rules"]:
            names = rule.get("resourceNames", name)
            if VERBS[request.method] in rule["verbs"] and resource in rule["resources"]:
                return set(name) <= set(names)
    return False


@pytest.fixture
async def server() -> AsyncIterator[ApiServer]:
    one = ApiServer(tokens={"good"})
    one.faults.answer = lambda request: None if allowed(request) else status(403, "forbidden")
    await one.start()
    yield one
    await one.stop()


async def apply(server: ApiServer, folder: Path) -> int:
    """Run the Job's container once."""
    (job,) = of(OVERLAY, "Job")
    (container,) = job["spec"]["template"]["spec"]["containers"]
    program, command = container["command"]
    assert program == "flowctl"
    access = str(kubeconfig(folder / "kubeconfig", server.url, {"token": "good"}))
    arguments = [command, "--kubeconfig", access, *container["args"]]
    return await asyncio.to_thread(main, arguments)


def passwords(server: ApiServer) -> dict[tuple[str, str], str]:
    return {
        key[2:]: base64.b64decode(item["data"]["password"]).decode()
        for key, item in server.objects.items()
    }


async def test_apply_delete_apply(server: ApiServer, tmp_path: Path) -> None:
    assert await apply(server, tmp_path) == 0
    made = passwords(server)
    assert {("Secret", *name) for name in made} == generated(OVERLAY)
    assert len(set(made.values())) == 2

    version = server.version
    assert await apply(server, tmp_path) == 0
    assert (passwords(server), server.version) == (made, version)

    # kubectl delete -k takes the aggregator's namespace, and leaves what is beside the records.
    gone = [item for key, item in server.objects.items() if key[2] == "flow-aggregator"]
    assert len(gone) == 2
    for item in gone:
        server.remove(item)
    assert await apply(server, tmp_path) == 0
    assert passwords(server) == made


async def test_it_may_do_nothing_else(
    server: ApiServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    access = str(kubeconfig(tmp_path / "kubeconfig", server.url, {"token": "good"}))
    for secret in ("flow-aggregator/flow-aggregator-ca-tls", "kube-system/clickhouse-secret"):
        arguments: list[Any] = ["credentials", "--kubeconfig", access, f"flowvis={secret}"]
        assert await asyncio.to_thread(main, arguments) == 1
        assert "403 forbidden" in capsys.readouterr().err
    assert not server.objects
