"""Who gets in over TCP, and how far."""

import ast
import asyncio
import json
import logging
import socket
import ssl
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from flowvis.aggregator.api import application, listeners, tokens
from flowvis.aggregator.api import reviews as reviews_module
from flowvis.aggregator.api.caller import Caller
from flowvis.aggregator.api.limits import CallerLimits
from flowvis.aggregator.api.problems import Problem
from flowvis.aggregator.api.routes import Needs, Route
from flowvis.aggregator.api.tokens import TokenFile
from flowvis.aggregator.api.visibility import EVERYTHING, Visibility
from flowvis.errors import SettingsError
from flowvis.lab.apiserver import ApiServer, User
from flowvis.transport.certificates import issue_ca, issue_server
from flowvis.transport.tls import TlsFiles
from waiting import until

from .opened import ADMIN, FLOWS, NOBODY, SHOP, SHOPS, TOKENS, Opened, opened, reviewing
from .records import records

ME = "/api/v1/me"


class Clock:
    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def sources(text: str) -> list[str]:
    return [json.loads(line)["sourceIP"] for line in text.splitlines()]


async def test_who_one_is(tmp_path: Path) -> None:
    async with opened(tmp_path) as it:
        assert await it.ask(ME, ADMIN) == (
            200,
            {"user": "admin", "namespaces": "*", "may": {"sql": True, "nodes": True}},
        )
        assert (await it.ask(ME, SHOP))[1] == {
            "user": "sam",
            "namespaces": ["shop"],
            "may": {"sql": False, "nodes": False},
        }


async def test_only_health_is_for_anybody(tmp_path: Path) -> None:
    async with opened(tmp_path) as it:
        for route in it.api.connections._application.routes:
            for path in (route.path, *route.also):
                status, answer = await it.ask(path, method=route.method)
                if path in {"/healthz", "/livez", "/readyz"}:
                    assert (status, answer) == (200, "ok")
                elif path == "/api/v1/session":
                    assert status in {400, 403}
                else:
                    assert (status, answer["error"]["code"]) == (401, "unauthenticated"), path


@pytest.mark.parametrize(
    "authorization",
    [
        "",
        "Bearer",
        "Bearer ",
        f"Bearer {NOBODY}",
        f"Bearer {ADMIN[:-1]}",
        f"Bearer {ADMIN}x",
        f"Basic {ADMIN}",
        ADMIN,
        "Bearer " + "x" * 8001,
        "Bearer \xe4\xf6\xfc" + ADMIN,
    ],
)
async def test_wrong_tokens(tmp_path: Path, authorization: str) -> None:
    async with opened(tmp_path) as it:
        status, answer = await it.ask(ME, headers={"Authorization": authorization})
        assert (status, answer["error"]["code"]) == (401, "unauthenticated")
        assert it.stats.refused["unauthenticated"] == 1
        assert ADMIN not in answer["error"]["message"]


async def test_refusals_are_in_the_log_without_the_token(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    async with opened(tmp_path) as it:
        await it.ask("/api/v1/sql?token=" + NOBODY, NOBODY, "POST")
        await it.ask("/api/v1/sql", SHOP, "POST")
    refused = [record for record in caplog.records if "refused" in record.message]
    assert [record.__dict__["caller"] for record in refused] == ["", "sam"]
    assert refused[0].__dict__["request"] == "POST /api/v1/sql"
    assert refused[0].__dict__["peer"] == "127.0.0.1"
    assert NOBODY not in str([record.__dict__ for record in caplog.records])


async def test_the_file_of_tokens_is_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    file = tmp_path / "tokens"
    file.write_text(TOKENS)
    async with opened(tmp_path, TokenFile(file, clock)) as it:
        assert await it.code(ME, SHOP) == ""
        file.write_text(TOKENS.replace(SHOP, NOBODY))
        clock.now_s += tokens.LOOK_S
        assert await it.code(ME, SHOP) == "unauthenticated"
        assert await it.code(ME, NOBODY) == ""
        file.write_text("short name")
        clock.now_s += tokens.LOOK_S
        assert await it.code(ME, NOBODY) == "", "a bad file changes nothing"
        assert "line 1: a token has 20" in caplog.text
        file.unlink()
        clock.now_s += tokens.LOOK_S
        assert await it.code(ME, NOBODY) == "unauthenticated"
    assert NOBODY not in caplog.text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("short name", "line 1: a token has 20"),
        (f"\n{ADMIN}", "line 2: write TOKEN NAME"),
        (f"{ADMIN} a shop, back", "line 1: write TOKEN NAME"),
        (f"{ADMIN} a\n{ADMIN} b", "line 2: the token of another line"),
        (f"{ADMIN}ä a", "line 1: a token has 20 printable characters of ASCII"),
        ("x" * (tokens.MAX_BYTES + 1), "more than"),
    ],
)
async def test_bad_files_of_tokens(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "bad").write_text(text)
    with pytest.raises(SettingsError, match=f"tokenFile: .*{message}"):
        await TokenFile(tmp_path / "bad").start()
    with pytest.raises(SettingsError, match=r"tokenFile: .*No such file"):
        await TokenFile(tmp_path / "none").start()


async def test_namespaces_by_tokens(tmp_path: Path) -> None:
    (tmp_path / "file").write_text(f"{ADMIN} a shop,back,\n{SHOP} b ,\n{NOBODY} c *")
    async with opened(tmp_path, TokenFile(tmp_path / "file")) as it:
        assert (await it.ask(ME, ADMIN))[1]["namespaces"] == ["back", "shop"]
        assert (await it.ask(ME, SHOP))[1]["namespaces"] == []
        assert (await it.ask(ME, NOBODY))[1]["namespaces"] == "*"
        assert await it.code("/flows", SHOP) == "forbidden"


ASKED = [
    "",
    "filter=src.namespace = back or namespace = shop",
    "filter=namespace != shop",
    "filter=not namespace = shop",
    "filter=not (namespace = shop) or ip = 10.0.0.3",
    "filter=namespace is empty",
    "filter=namespace = ''",
    "filter=namespace ~ '.*'",
    "filter=namespace = *",
    "filter=namespace in (back, '')",
    "filter=namespace = SHOP",
    "filter=namespace = shop%00",
    'filter=namespace = "shop\\0"',
    "filter=namespace = \uff53\uff48\uff4f\uff50",
    "filter=namespace = sho\u0070\u0301",
    "filter=) or (namespace = back",
    "filter=1 = 1",
    "filter=sourcePodNamespace = back",
    "filter=10.0.0.3",
    "filter=back",
    "filter=service = shop/web",
    "filter=node = shop",
    "namespace=back",
    "namespace=shop' or '1'='1",
    "pod=shop",
    "limit=1000000",
    "namespaces=back",
    "user=admin",
]
"""Attempts to see more than one may."""


@pytest.mark.parametrize("path", ["/flows", "/api/v1/live"])
@pytest.mark.parametrize("asked", ASKED)
async def test_nothing_shows_more_than_one_may_see(tmp_path: Path, path: str, asked: str) -> None:
    async with opened(tmp_path) as it:
        status, answer = await it.ask(f"{path}?{asked}", SHOP)
        if status == 200:
            assert set(sources(answer)) <= set(SHOPS)
        else:
            assert status == 400
            assert "10.0.0." not in answer["error"]["message"].replace("10.0.0.3", "")


async def test_a_record_with_an_end_in_the_namespace_is_seen(tmp_path: Path) -> None:
    async with opened(tmp_path) as it:
        for path in ("/flows", "/api/v1/live"):
            assert sources((await it.ask(path, SHOP))[1]) == SHOPS
            assert len(sources((await it.ask(path, ADMIN))[1])) == 7


async def test_what_follows_is_as_little(tmp_path: Path) -> None:
    async with opened(tmp_path) as it:
        headers = {"Authorization": f"Bearer {SHOP}"}
        async with it.http.get(f"{it.url}/flows?follow=1&limit=0", headers=headers) as answer:
            it.history.put(records({"sourceIP": "10.1.0.1", "sourcePodNamespace": "back"}))
            it.history.put(records({"sourceIP": "10.1.0.2", "sourcePodNamespace": "shop"}))
            assert sources((await answer.content.readline()).decode()) == ["10.1.0.2"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/status"),
        ("GET", "/api/v1/status"),
        ("GET", "/ledger"),
        ("GET", "/api/v1/ledger"),
        ("POST", "/sql"),
        ("POST", "/api/v1/sql"),
    ],
)
async def test_what_needs_all_namespaces(tmp_path: Path, method: str, path: str) -> None:
    async with opened(tmp_path) as it:
        body = {"json": {"query": "SELECT"}} if method == "POST" else {}
        status, answer = await it.ask(path, SHOP, method, **body)
        assert (status, answer["error"]["code"]) == (403, "forbidden")
        assert (await it.ask(path, ADMIN, method, **body))[0] == 200
        for around in (f"/{path}", f"{path}/", path.upper(), path.replace("/s", "/%73")):
            assert (await it.ask(around, SHOP, method, **body))[0] in {403, 404}


def test_filters_are_had_only_by_what_the_caller_may_see() -> None:
    """`asked` is the way from a request to a filter: nothing else of the API parses one."""
    room = Path(application.__file__).parent
    for module in room.rglob("*.py"):
        for node in ast.walk(ast.parse(module.read_text())):
            if isinstance(node, ast.ImportFrom) and module.name != "asking.py":
                assert node.module != "flowvis.filters.parser", module
                names = [each.name for each in node.names]
                assert node.module != "flowvis.filters" or "parse" not in names, module


def users() -> dict[str, User]:
    return {
        ADMIN: User("admin", None),
        SHOP: User("system:serviceaccount:shop:sam", {"shop"}),
    }


async def test_users_of_a_cluster_see_what_they_may_list(tmp_path: Path) -> None:
    server = ApiServer(tokens={"own"}, users=users())
    async with reviewing(tmp_path, server) as (it, _):
        assert (await it.ask(ME, ADMIN))[1]["namespaces"] == "*"
        me = (await it.ask(ME, SHOP))[1]
        assert (me["user"], me["namespaces"]) == ("system:serviceaccount:shop:sam", ["shop"])
        assert sources((await it.ask("/flows", SHOP))[1]) == SHOPS
        assert await it.code(ME, NOBODY) == "unauthenticated"
        asked = [review["spec"].get("resourceAttributes") for review in server.reviews]
    of_sam = [each for each in asked if each][1:]
    assert {each.get("namespace") for each in of_sam} == {None, "back", "shop"}
    assert {each["resource"] for each in of_sam} == {"pods"}


async def test_what_users_see_is_of_their_cluster(tmp_path: Path) -> None:
    server = ApiServer(tokens={"own"}, users=users())
    async with reviewing(tmp_path, server, cluster=lambda: "east") as (it, reviews):
        assert await it.code(ME, SHOP) == ""
        sam, admin = await reviews.identify(SHOP), await reviews.identify(ADMIN)
    assert sam is not None
    assert sam.visibility == Visibility.of(["shop"], "east")
    assert admin is not None
    assert admin.visibility == EVERYTHING


async def test_answers_count_for_a_minute(tmp_path: Path) -> None:
    clock = Clock()
    server = ApiServer(users=users())
    async with reviewing(tmp_path, server, clock=clock) as (it, reviews):
        for _ in range(3):
            assert await it.code("/api/v1/status", ADMIN) == ""
            assert await it.code(ME, NOBODY) == "unauthenticated"
        assert reviews.stats.token_reviews == 2
        server.users[NOBODY] = server.users.pop(ADMIN)
        clock.now_s += 31  # asked again, while the old answer counts
        assert await it.code("/api/v1/status", ADMIN) == ""
        await until(lambda: reviews.stats.token_reviews == 3 and not reviews._under_way)
        assert await it.code("/api/v1/status", ADMIN) == "unauthenticated"
        clock.now_s += 61
        assert await it.code("/api/v1/status", NOBODY) == ""
        server.users[NOBODY].namespaces = {"shop"}
        clock.now_s += 61
        assert await it.code("/api/v1/status", NOBODY) == "forbidden"


async def test_without_the_api_server_nobody_gets_in_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    server = ApiServer(tokens={"own"}, users=users())
    async with reviewing(tmp_path, server, clock=clock) as (it, _):
        assert await it.code(ME, ADMIN) == ""
        server.tokens = {"other"}
        assert await it.code(ME, ADMIN) == ""
        assert await it.code(ME, SHOP) == "unavailable"
        clock.now_s += 61
        assert await it.code(ME, ADMIN) == "unavailable"
        await server.stop()
        assert await it.code(ME, ADMIN) == "unavailable"
    assert "tokens cannot be checked" in caplog.text
    assert ADMIN not in caplog.text


async def test_guesses_keep_no_known_token_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many are checked, and however long that takes."""
    monkeypatch.setattr(reviews_module, "AT_ONCE", 2)
    monkeypatch.setattr(reviews_module, "MAX_UNDER_WAY", 4)
    clock, checked = Clock(), asyncio.Event()
    async with reviewing(tmp_path, ApiServer(users=users()), clock=clock) as (it, reviews):
        assert await it.code(ME, ADMIN) == ""
        assert reviews._api is not None
        create = reviews._api.create

        async def slow(path: str, item: Mapping[str, Any]) -> dict[str, Any]:
            if item["spec"].get("token", "").startswith("guess"):
                await checked.wait()
            return await create(path, item)

        monkeypatch.setattr(reviews._api, "create", slow)
        guesses = [asyncio.create_task(it.code(ME, f"guess-{n:020}")) for n in range(6)]
        await until(
            lambda: len(reviews._under_way) == 4 and sum(each.done() for each in guesses) == 2
        )
        clock.now_s += 61
        assert await asyncio.wait_for(it.code(ME, ADMIN), 20) == ""
        checked.set()
        assert (
            sorted(await asyncio.gather(*guesses)) == ["unauthenticated"] * 4 + ["unavailable"] * 2
        )


async def test_namespaces_that_are_not_known_yet(tmp_path: Path) -> None:
    """Nobody is told that they see nothing because we do not know yet what there is."""
    known: list[str] = []

    def namespaces() -> list[str]:
        if not known:
            raise Problem("unavailable", "not known yet")
        return known

    server = ApiServer(users=users())
    async with reviewing(tmp_path, server, namespaces) as (it, _):
        assert await it.code(ME, SHOP) == "unavailable"
        assert await it.code(ME, ADMIN) == ""
        known.append("shop")
        assert (await it.ask(ME, SHOP))[1]["namespaces"] == ["shop"]


async def test_guesses_do_not_become_many_questions(tmp_path: Path) -> None:
    server = ApiServer(users=users())
    async with reviewing(tmp_path, server) as (it, reviews):
        assert await it.code(ME, ADMIN) == ""
        found = [await it.code(ME, f"guess-{number:020}") for number in range(60)]
        assert set(found) == {"unauthenticated", "too-many"}
        assert reviews.stats.token_reviews < 45
        assert await it.code(ME, ADMIN) == "", "who is known is let in"


async def test_what_is_revoked_ends_what_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(application, "RECHECK_S", 0.02)
    clock = Clock()
    server = ApiServer(users=users())
    async with reviewing(tmp_path, server, clock=clock) as (it, _):
        headers = {"Authorization": f"Bearer {SHOP}"}
        async with it.http.get(f"{it.url}/flows?follow=1&limit=1", headers=headers) as answer:
            assert await answer.content.readline()
            assert len(it.history._followers) == 1
            del server.users[SHOP]
            clock.now_s += 61
            with pytest.raises(aiohttp.ClientError):
                await answer.content.read()
        await until(lambda: not it.history._followers)
        assert it.stats.ended == 1


PAGE = {"X-Flowvis": "1"}


async def logged_in(it: Opened, token: str, headers: dict[str, str] = PAGE) -> tuple[int, Any]:
    return await it.ask("/api/v1/session", "", "POST", json={"token": token}, headers=headers)


async def test_a_browser_has_a_session(tmp_path: Path) -> None:
    async with opened(tmp_path) as it:
        async with it.http.post(
            f"{it.url}/api/v1/session", json={"token": SHOP}, headers=PAGE
        ) as answer:
            assert answer.status == 200
            cookie = answer.headers["Set-Cookie"]
            assert (await answer.json())["user"] == "sam"
        assert SHOP not in cookie
        assert cookie.startswith(f"flowvis-{it.api.port}=")
        assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(cookie.split("; "))
        assert "Secure" not in cookie
        assert (await it.ask(ME, headers=PAGE))[1]["user"] == "sam"
        assert (await it.ask(ME, headers={"Sec-Fetch-Site": "same-origin"}))[1]["user"] == "sam"
        assert (await it.ask(ME, ADMIN))[1]["user"] == "admin", "a token counts more"
        assert (await it.ask("/api/v1/session", "", "DELETE", headers=PAGE))[0] == 204
        assert await it.code(ME, headers=PAGE) == "unauthenticated"
        assert not len(it.door.sessions)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "cross-site"},
        {"X-Flowvis": "0"},
        PAGE | {"Origin": "http://evil.example"},
        PAGE | {"Origin": "null"},
        PAGE | {"Origin": "http://[::1"},
        PAGE | {"Origin": "http://127.0.0.1:1"},
    ],
)
async def test_other_pages_cannot_use_a_session(tmp_path: Path, headers: dict[str, str]) -> None:
    async with opened(tmp_path) as it:
        assert (await logged_in(it, ADMIN))[0] == 200
        assert await it.code(ME, headers=headers) == "forbidden"
        assert await it.code("/api/v1/sql", "", "POST", json={"query": "SELECT"}, headers=headers)
        assert (await logged_in(it, ADMIN, headers))[1]["error"]["code"] == "forbidden"
        own = PAGE | {"Origin": it.url}
        assert await it.code("/api/v1/sql", "", "POST", json={"query": "S"}, headers=own) == ""
        same = {"Sec-Fetch-Site": "same-origin"}
        assert await it.code("/api/v1/sql", "", "POST", json={"query": "S"}, headers=same)


async def test_names_for_this_machine_that_are_not_its(tmp_path: Path) -> None:
    """A name of somebody's own that leads here is no way around the origin."""
    async with opened(tmp_path) as it:
        for host in ("evil.example", "127.0.0.1.evil.example:80", "localhost.evil"):
            assert await it.code(ME, ADMIN, headers={"Host": host}) == "forbidden"
        for host in ("localhost:7", "[::1]:7", "127.0.0.1"):
            assert await it.code(ME, ADMIN, headers={"Host": host}) == ""


async def test_sessions_end_with_their_token(tmp_path: Path) -> None:
    clock = Clock()
    server = ApiServer(users=users())
    async with reviewing(tmp_path, server, clock=clock) as (it, _):
        assert (await logged_in(it, NOBODY))[0] == 401
        assert (await logged_in(it, SHOP))[0] == 200
        del server.users[SHOP]
        clock.now_s += 61
        assert await it.code(ME, headers=PAGE) == "unauthenticated"
        assert not len(it.door.sessions)


async def test_sessions_of_one_are_few(tmp_path: Path) -> None:
    async with opened(tmp_path) as it:
        first = it.door.sessions.begin("admin", ADMIN)
        for _ in range(40):
            it.door.sessions.begin("sam", SHOP)
        assert len(it.door.sessions) == 33
        assert it.door.sessions.token(first) == ADMIN


async def test_requests_of_one_caller_are_limited(tmp_path: Path) -> None:
    clock = Clock()
    async with opened(tmp_path, limits=CallerLimits(2, 2, clock)) as it:
        found = [await it.code(ME, SHOP) for _ in range(5)]
        assert found == ["", "", "", "", "too-many"]
        assert await it.code(ME, ADMIN) == "", "others are not concerned"
        clock.now_s += 1
        assert [await it.code(ME, SHOP) for _ in range(3)] == ["", "", "too-many"]
        clock.now_s += 1
        mistaken = [await it.code("/flows?limit=x", SHOP), await it.code("/status", SHOP)]
        assert mistaken == ["bad-request", "forbidden"]
        assert await it.code(ME, SHOP) == "too-many", "mistakes count as well"
        async with it.http.get(
            f"{it.url}{ME}", headers={"Authorization": f"Bearer {SHOP}"}
        ) as answer:
            assert answer.status == 429
            assert answer.headers["Retry-After"] == "1"


async def test_requests_at_one_time_are_limited(tmp_path: Path) -> None:
    async with opened(tmp_path, limits=CallerLimits(100, 2)) as it:
        headers = {"Authorization": f"Bearer {SHOP}"}
        follow = f"{it.url}/flows?follow=1"
        async with it.http.get(follow, headers=headers), it.http.get(follow, headers=headers):
            assert await it.code(ME, SHOP) == "too-many"
            assert await it.code(ME, ADMIN) == ""
        await until(lambda: not it.history._followers)
        assert await it.code(ME, SHOP) == ""


async def refused_body(it: Opened, header: str) -> bytes:
    """Send the head of a request with a body, and nothing more; return what comes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", it.api.port)
    head = f"POST /sql HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {ADMIN}\r\n"
    writer.write(f"{head}{header}\r\n\r\n".encode())
    found = await reader.read()
    writer.close()
    return found


async def test_requests_that_are_too_large(tmp_path: Path) -> None:
    async with opened(tmp_path) as it:
        length = application.MAX_REQUEST_BYTES + 1
        assert b"413" in await refused_body(it, f"Content-Length: {length}")
        assert b"needs a Content-Length" in await refused_body(it, "Transfer-Encoding: chunked")
        assert it.stats.refused["too-large"] == 1
        status, _ = await it.ask(ME, ADMIN, headers={"X-Long": "x" * 20_000})
        assert status == 400
        assert (await it.ask("/api/v1/me?" + "x" * 20_000, ADMIN))[0] in {400, 414}
        assert await it.code(ME, ADMIN) == ""


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"GET / HTTP/9.9\r\nHost: 127.0.0.1\r\n\r\n",
        b"GET  /  x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nA: " + b"x" * 20_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost 127.0.0.1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    ],
)
async def test_what_is_no_request(
    tmp_path: Path, sent: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(tmp_path) as it:
        for _ in range(20):
            reader, writer = await asyncio.open_connection("127.0.0.1", it.api.port)
            writer.write(sent + b"\r\n\r\n")
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")
            writer.close()
            assert head.startswith(b"HTTP/1.0 400 ")
            assert b"aiohttp" not in head
            assert json.loads(body)["error"]["code"] == "bad-request"
        assert it.stats.refused["bad-request"] == 20
        assert await it.code(ME, ADMIN) == ""
    said = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert not said, "anybody can send it: nothing to fill a log with"


async def test_a_body_that_does_not_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flowvis.aggregator.api.routes.BODY_S", 0.05)
    async with opened(tmp_path) as it:
        reader, writer = await asyncio.open_connection("127.0.0.1", it.api.port)
        head = f"POST /sql HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {ADMIN}\r\n"
        writer.write(f"{head}Content-Length: 100\r\n\r\n{{".encode())
        assert b"400" in await reader.readline()
        writer.close()


async def test_idle_connections_keep_nobody_out(tmp_path: Path) -> None:
    async with opened(tmp_path, max_connections=8) as it:
        idle = [socket.create_connection(("127.0.0.1", it.api.port)) for _ in range(40)]
        halves = [socket.create_connection(("127.0.0.1", it.api.port)) for _ in range(40)]
        for sock in halves:
            sock.send(b"GET /api/v1/me HTTP/1.1\r\nHost: 127.0")
        for _ in range(5):
            assert await it.code(ME, ADMIN) == ""
        assert it.api.connections.stats.closed["gave-way"] >= 72
        assert len(it.api.connections) <= 8
        for sock in idle + halves:
            sock.close()


def large(of: Needs) -> Route:
    """Return a route of an answer that no socket's buffers take."""

    async def answer(_: Caller, __: web.Request) -> web.Response:
        return web.Response(body=bytes(LARGE_BYTES))

    return Route("GET", "/large", answer, "Zeros", needs=of)


LARGE_BYTES = 32 << 20
GET_LARGE = f"GET /large HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {ADMIN}\r\n\r\n"


@pytest.mark.parametrize(
    ("needs", "sent"),
    [
        (
            Needs.NOTHING,
            "POST /api/v1/session HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9\r\n\r\n",
        ),
        (Needs.NOTHING, GET_LARGE),
        (Needs.CALLER, GET_LARGE),
    ],
    ids=["a body that does not come", "what anybody gets", "what is asked for by who is known"],
)
async def test_who_does_not_go_on_keeps_nobody_out(tmp_path: Path, needs: Needs, sent: str) -> None:
    """And who is known, and is being answered, stays."""
    async with opened(tmp_path, max_connections=8, more=[large(needs)]) as it:
        headers = {"Authorization": f"Bearer {SHOP}"}
        async with it.http.get(f"{it.url}/flows?follow=1&limit=0", headers=headers) as followed:
            halves: list[socket.socket] = []
            for _ in range(20):
                sock = socket.create_connection(("127.0.0.1", it.api.port), 10, ("127.0.0.2", 0))
                sock.send(sent.encode())
                halves.append(sock)
                await until(lambda: it.stats.requests == 1 + len(halves))
            assert await it.code(ME, ADMIN) == ""
            it.history.put(FLOWS)
            assert [json.loads(await followed.content.readline())["sourceIP"]] == SHOPS[:1]
        assert it.api.connections.stats.closed["gave-way"] >= 13
        assert not it.api.connections.stats.closed["full"]
        for sock in halves:
            sock.close()


async def test_who_reads_slowly_is_not_idle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long an answer takes, as long as something of it is taken."""
    monkeypatch.setattr(listeners, "LOOK_S", 0.01)
    monkeypatch.setattr(listeners, "NEXT_REQUEST_S", 0.05)
    async with opened(tmp_path, more=[large(Needs.CALLER)]) as it:
        reader, writer = await asyncio.open_connection("127.0.0.1", it.api.port)
        writer.write(GET_LARGE.encode())
        assert b"200" in await reader.readline()
        assert await it.code(ME, ADMIN) == ""  # by another connection, which is idle from here on
        await until(lambda: len(it.api.connections) == 1)
        await reader.readuntil(b"\r\n\r\n")
        assert len(await reader.readexactly(LARGE_BYTES)) == LARGE_BYTES
        await until(lambda: not len(it.api.connections))  # read, and then idle
        writer.close()


async def test_who_is_known_stays_when_room_is_needed(tmp_path: Path) -> None:
    async with opened(tmp_path, max_connections=8) as it:
        assert await it.code(ME, ADMIN) == ""
        for _ in range(3):
            idle = [
                socket.create_connection(("127.0.0.1", it.api.port), 10, (f"127.0.0.{last}", 0))
                for last in range(2, 30)
            ]
            await until(lambda: it.api.connections.stats.closed["gave-way"] >= 20)
            assert await it.code(ME, ADMIN) == ""
            for sock in idle:
                sock.close()
        own = it.http.connector
        assert isinstance(own, aiohttp.TCPConnector)
        assert len(own._conns) == 1
        assert it.api.connections.stats.connections == 1 + 3 * 28, "the first is still there"


async def test_who_is_refused_waits_a_little(tmp_path: Path) -> None:
    async with opened(tmp_path, refused_s=0.3) as it:
        began_s = time.monotonic()
        assert await it.code(ME, ADMIN) == ""
        answered_s = time.monotonic()
        assert await it.code(ME, NOBODY) == "unauthenticated"
        assert time.monotonic() - answered_s >= 0.3 > answered_s - began_s - 20


async def test_connections_that_ask_nothing_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listeners, "LOOK_S", 0.01)
    monkeypatch.setattr(listeners, "FIRST_REQUEST_S", 0.05)
    async with opened(tmp_path) as it:
        reader, writer = await asyncio.open_connection("127.0.0.1", it.api.port)
        writer.write(b"GET / HTTP/1.1\r\nHo")
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await reader.readexactly(1)
        assert it.api.connections.stats.closed["idle"] == 1
        writer.close()


async def test_a_reader_who_takes_nothing_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listeners, "LOOK_S", 0.01)
    monkeypatch.setattr(listeners, "STALLED_S", 0.1)
    async with opened(tmp_path) as it:
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(("127.0.0.1", it.api.port))
        sock.send(
            b"GET /flows?follow=1 HTTP/1.1\r\nHost: 127.0.0.1\r\n"
            b"Authorization: Bearer " + ADMIN.encode() + b"\r\n\r\n"
        )
        await until(lambda: it.history._followers)
        many = records(*[{"sourcePodNamespace": "shop", "sourcePodLabels": "x" * 5000}] * 100)

        def stalled() -> bool:
            it.history.put(many)
            return it.api.connections.stats.closed["stalled"] == 1

        await until(stalled)
        await until(lambda: not it.history._followers)
        sock.close()


async def test_answers_over_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listeners, "LOOK_S", 0.01)
    ca = issue_ca()
    certificate, key = issue_server(ca, ["localhost", "127.0.0.1"]).write(tmp_path, "server")
    trusted = ssl.create_default_context(cadata=ca.certificate_pem().decode())
    async with opened(tmp_path, tls=TlsFiles(None, certificate, key)) as it:
        assert (await it.ask(ME, ADMIN, ssl=trusted))[1]["user"] == "admin"
        async with it.http.post(
            f"{it.url}/api/v1/session", json={"token": SHOP}, headers=PAGE, ssl=trusted
        ) as answer:
            cookie = answer.headers["Set-Cookie"]
            assert cookie.startswith(f"__Host-flowvis-{it.api.port}=")
            assert "Secure" in cookie
            for name, value in (
                ("X-Content-Type-Options", "nosniff"),
                ("Cache-Control", "no-store"),
                ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'"),
            ):
                assert answer.headers[name] == value
            assert "Server" not in answer.headers
        plain = socket.create_connection(("127.0.0.1", it.api.port))
        plain.send(b"GET /api/v1/me HTTP/1.1\r\n\r\n")
        await until(lambda: it.api.connections.stats.closed["handshake"] == 1)
        plain.close()
        issue_server(ca, ["localhost", "127.0.0.1"]).write(tmp_path, "server")
        await until(lambda: it.api._certificates is not None and it.api._certificates.reloads)
        async with (
            aiohttp.ClientSession() as fresh,
            fresh.get(f"{it.url}/healthz", ssl=trusted) as answer,
        ):
            assert answer.status == 200


async def test_errors_have_one_form(tmp_path: Path) -> None:
    async with opened(tmp_path) as it:
        status, answer = await it.ask("/flows?filter=src.namespce = shop", ADMIN)
        assert status == 400
        error = answer["error"]
        assert (error["code"], error["position"], error["length"]) == ("bad-filter", 0, 12)
        assert error["suggestion"] == "src.namespace"
        assert error["expected"] is not None
        assert (await it.ask("/nowhere", ADMIN))[1]["error"]["code"] == "not-found"
        assert (await it.ask(ME, ADMIN, "POST"))[1]["error"]["code"] == "not-allowed"
        for path in ("/flows?limit=1&limit=2", "/flows?limits=1", "/flows?limit=-1"):
            assert (await it.ask(path, ADMIN))[1]["error"]["code"] == "bad-request"


async def test_certificates_that_come_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The port is there at once; who connects waits."""
    monkeypatch.setattr(listeners, "LOOK_S", 0.01)
    ca = issue_ca()
    names = (tmp_path / "server.crt", tmp_path / "server.key")
    with pytest.raises(SettingsError, match=r"server.crt cannot be read"):
        async with opened(tmp_path, tls=TlsFiles(None, *names)):
            pass
    async with opened(tmp_path, tls=TlsFiles(None, *names), patient=True) as it:
        trusted = ssl.create_default_context(cadata=ca.certificate_pem().decode())
        waiting = asyncio.ensure_future(it.ask(ME, ADMIN, ssl=trusted))
        issue_server(ca, ["localhost", "127.0.0.1"]).write(tmp_path, "server")
        assert (await waiting)[0] == 200
    async with opened(tmp_path, tls=TlsFiles(None, Path("none"), Path("none")), patient=True):
        pass
