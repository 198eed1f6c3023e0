"""What operators read of an API server that does not answer as it should."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from flowvis.errors import ApiError
from flowvis.inventory.sources import api as api_module
from flowvis.inventory.sources.access import HOST, PORT, InCluster
from flowvis.inventory.sources.api import KubernetesApi
from flowvis.lab.apiserver import ApiServer, service_account
from flowvis.transport.certificates import Issued, issue_ca, issue_server


async def said(folder: Path, ca: Issued, host: str, port: int) -> str:
    """Ask, as a Pod does, and return what the error says."""
    account = service_account(folder / "account", "token", ca.certificate_pem())
    api = KubernetesApi(InCluster({HOST: host, PORT: str(port)}, account))
    api.open()
    try:
        with pytest.raises(ApiError) as caught:
            await api.get("/api/v1/pods", {})
    finally:
        await api.close()
    text = str(caught.value)
    named = f"[{host}]" if ":" in host else host
    assert text.startswith(f"https://{named}:{port}/api/v1/pods: "), text
    assert " object at 0x" not in text
    assert "ssl:" not in text
    return text


@asynccontextmanager
async def answering(folder: Path, ca: Issued, *names: str) -> AsyncIterator[int]:
    issue_server(ca, names).write(folder, "server")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.crt", folder / "server.key")
    server = ApiServer(tls=context)
    await server.start()
    try:
        yield server.port
    finally:
        await server.stop()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
async def test_refused(tmp_path: Path, host: str) -> None:
    with socket.socket(socket.AF_INET6 if host == "::1" else socket.AF_INET) as unused:
        unused.bind((host if host != "localhost" else "127.0.0.1", 0))
        text = await said(tmp_path, issue_ca(), host, unused.getsockname()[1])
    assert "connection refused" in text.lower()


async def test_a_name_that_does_not_exist(tmp_path: Path) -> None:
    text = await said(tmp_path, issue_ca(), "no.such.host.invalid", 6443)
    assert "the name is not resolved" in text


async def test_of_another_ca(tmp_path: Path) -> None:
    async with answering(tmp_path, issue_ca(), "127.0.0.1") as port:
        text = await said(tmp_path, issue_ca(), "127.0.0.1", port)
    assert "its certificate is not accepted: unable to get local issuer certificate" in text


async def test_for_another_name(tmp_path: Path) -> None:
    ca = issue_ca()
    async with answering(tmp_path, ca, "kubernetes.default.svc") as port:
        text = await said(tmp_path, ca, "127.0.0.1", port)
    assert "its certificate is not accepted: IP address mismatch" in text


async def test_without_tls(tmp_path: Path) -> None:
    async with contextlib.AsyncExitStack() as stack:
        server = ApiServer()
        await server.start()
        stack.push_async_callback(server.stop)
        text = await said(tmp_path, issue_ca(), "127.0.0.1", server.port)
    assert "TLS failed: " in text
    assert "does it speak TLS at this port?" in text


async def test_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_module, "ANSWER_S", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        text = await said(tmp_path, issue_ca(), "127.0.0.1", listener.getsockname()[1])
    assert "no answer in time" in text


async def test_hanging_up(tmp_path: Path) -> None:
    def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    text = await said(tmp_path, issue_ca(), "127.0.0.1", port)
    server.close()
    assert text.partition("pods: ")[2]
