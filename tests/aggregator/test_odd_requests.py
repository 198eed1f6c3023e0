"""Requests that no client of ours sends are answered as others, and leave nothing in the log."""

import asyncio
import contextlib
import gc
import json
import logging
import socket
import ssl
from pathlib import Path
from urllib.parse import quote

import pytest
import uvloop
from aiohttp import web

from flowvis.aggregator.api.caller import Caller
from flowvis.aggregator.api.problems import Problem
from flowvis.aggregator.api.routes import Route
from flowvis.filters.tokens import MAX_LENGTH
from flowvis.transport.certificates import issue_ca, issue_server
from flowvis.transport.tls import TlsFiles
from waiting import PATIENCE_S

from .opened import ADMIN, Opened, opened


async def answered(it: Opened, head: str, body: bytes = b"") -> tuple[int, bytes]:
    """Send what is no client's; return the last status and the body."""
    port = it.api.port
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    lines = [*head.splitlines(), f"Host: 127.0.0.1:{port}", "Connection: close"]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
    whole = await asyncio.wait_for(reader.read(), PATIENCE_S)
    writer.close()
    while whole.startswith(b"HTTP/1.1 100"):
        whole = whole.partition(b"\r\n\r\n")[2]
    first, _, rest = whole.partition(b"\r\n\r\n")
    return int(first.split(b" ")[1]), rest


@pytest.mark.parametrize(
    ("path", "status"), [("/healthz", 200), ("/api/v1/me", 401), ("/no/such", 417)]
)
async def test_an_expectation_ends_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, path: str, status: int
) -> None:
    async with opened(tmp_path) as it:
        for expected in ("tea", "100-continue, tea", "101"):
            found, _ = await answered(it, f"GET {path} HTTP/1.1\nExpect: {expected}")
            assert found == status
    assert [r for r in caplog.records if r.levelno >= logging.ERROR] == []


@pytest.mark.parametrize("letter", ["%", "語", "\N{SNOWMAN}"])
async def test_the_longest_filter_is_a_request(tmp_path: Path, letter: str) -> None:
    """An address has three characters for each of its bytes."""
    names = f"src.pod in ({', '.join([repr(letter * 300).replace(chr(39), chr(34))] * 27)})"
    while len(f'{names} or src.pod = "{letter}"'.encode()) > MAX_LENGTH:
        names = names[: names.rindex(", ")] + ")"
    longer = f'{names} or src.pod = "{letter * MAX_LENGTH}"'
    async with opened(tmp_path) as it:
        head = f"HTTP/1.1\nAuthorization: Bearer {ADMIN}"
        for text, wanted in ((names, 200), (longer, 400)):
            found, body = await answered(it, f"GET /api/v1/live?filter={quote(text)} {head}")
            assert found == wanted, body[:300]


async def test_a_body_is_sent_when_it_may_come(tmp_path: Path) -> None:
    head = f"POST /sql HTTP/1.1\nAuthorization: Bearer {ADMIN}\nExpect: 100-Continue"
    async with opened(tmp_path) as it:
        status, answer = await answered(it, head, b"{}")
    assert status == 400
    assert b"SELECT" in answer


@pytest.mark.parametrize(
    ("header", "body"),
    [
        ("Content-Encoding: gzip", b"no gzip"),
        ("Content-Encoding: deflate", b"\xff\xff\xff"),
        ("Content-Type: application/json; charset=hex", b'{"token": 1}'),
        ("Content-Type: application/json; charset=nosuch", b'{"token": 1}'),
        ("Content-Type: ;;=", b"\xff\xfe{"),
        ("X-Flowvis: 1", b"[" * 20_000),
    ],
)
async def test_a_body_that_is_none_is_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, header: str, body: bytes
) -> None:
    async with opened(tmp_path) as it:
        status, answer = await answered(it, f"POST /api/v1/session HTTP/1.1\n{header}", body)
    assert status == 400
    assert json.loads(answer)["error"]["code"] == "bad-request"
    assert [r for r in caplog.records if r.levelno >= logging.ERROR] == []


@pytest.mark.parametrize("token", [ADMIN, "unknown"])
def test_of_a_body_that_is_refused_no_more_is_read(tmp_path: Path, token: str) -> None:
    sent, status = uvloop.run(_pushed(tmp_path, token, most=256 << 20))
    assert sent < 64 << 20  # what sockets' buffers hold
    assert status in {b"401", b"413"}


async def _pushed(path: Path, token: str, most: int) -> tuple[int, bytes]:
    """Send a body for as long as it is taken; return how much that was, and the status."""
    ca = issue_ca()
    certificate, key = issue_server(ca, ["localhost"]).write(path, "server")
    trusted = ssl.create_default_context(cadata=ca.certificate_pem().decode())
    head = f"POST /sql HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n"

    def push(port: int) -> tuple[int, bytes]:
        with (
            socket.create_connection(("localhost", port), PATIENCE_S) as sock,
            trusted.wrap_socket(sock, server_hostname="localhost") as secured,
        ):
            secured.sendall(f"{head}Content-Length: {most}\r\n\r\n".encode())
            answer = secured.recv(1024)
            sent = 0
            with contextlib.suppress(OSError):
                while sent < most:
                    sent += secured.send(bytes(1 << 16))
            return sent, answer.split()[1]

    async with opened(path, tls=TlsFiles(None, certificate, key)) as it:
        return await asyncio.to_thread(push, it.api.port)


async def test_whoever_has_no_token_sends_a_small_body_or_none(tmp_path: Path) -> None:
    async with opened(tmp_path) as it:
        body = json.dumps({"token": "x" * 40_000}).encode()
        assert await it.code("/api/v1/session", method="POST", data=body) == "too-large"
        status, _ = await it.ask("/api/v1/session", method="POST", json={"token": "x" * 20_000})
        assert status in {401, 403}


async def test_what_goes_wrong_for_who_has_left_is_not_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def answer(_: Caller, __: web.Request) -> web.StreamResponse:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ended.set()
            raise Problem("too-many", "and nobody is told") from None
        raise AssertionError

    async with opened(tmp_path, more=[Route("GET", "/slow", answer, "Never")]) as it:
        asking = asyncio.ensure_future(it.ask("/slow", ADMIN))
        await asyncio.wait_for(begun.wait(), PATIENCE_S)
        asking.cancel()
        await asyncio.wait_for(ended.wait(), PATIENCE_S)
    gc.collect()
    assert [r.getMessage() for r in caplog.records if r.levelno >= logging.ERROR] == []
