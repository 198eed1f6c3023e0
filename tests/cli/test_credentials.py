"""Passwords that nobody chose, and nobody overwrites."""

import asyncio
import base64
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from flowvis.cli.flowctl import main
from flowvis.lab.apiserver import ApiServer, kubeconfig, status

HERE, THERE = ("store", "writer"), ("daemon", "writer")
USER = "flowvis=store/writer,daemon/writer"


@pytest.fixture
async def server() -> AsyncIterator[ApiServer]:
    one = ApiServer(tokens={"good"})
    await one.start()
    yield one
    await one.stop()


@pytest.fixture
def access(server: ApiServer, tmp_path: Path) -> str:
    return str(kubeconfig(tmp_path / "kubeconfig", server.url, {"token": "good"}))


async def run(access: str, *users: str) -> int:
    return await asyncio.to_thread(main, ["credentials", "--kubeconfig", access, *users])


def put(server: ApiServer, place: tuple[str, str], **texts: str) -> None:
    data = {key: base64.b64encode(text.encode()).decode() for key, text in texts.items()}
    about = {"namespace": place[0], "name": place[1], "annotations": {"mine": "x"}}
    server.put({"apiVersion": "v1", "kind": "Secret", "metadata": about, "data": data})


def texts(server: ApiServer, place: tuple[str, str]) -> dict[str, str]:
    data: dict[str, Any] = server.objects["v1", "secrets", *place]["data"]
    return {key: base64.b64decode(value).decode() for key, value in data.items()}


def complete(password: str) -> dict[str, str]:
    digest = hashlib.sha256(password.encode()).hexdigest()
    return {"username": "flowvis", "password": password, "password_sha256_hex": digest}


async def test_each_user_gets_one_in_all_its_secrets(
    server: ApiServer, access: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await run(access, USER, "reader=store/reader") == 0
    made = texts(server, HERE)
    assert made == texts(server, THERE) == complete(made["password"])
    other = texts(server, ("store", "reader"))
    assert other["username"] == "reader"
    assert other["password"] != made["password"]
    assert min(len(each["password"]) for each in (made, other)) >= 43
    output = capsys.readouterr()
    assert "Secret store/writer of flowvis: made" in output.out
    assert made["password"] not in output.out + output.err


async def test_running_it_again_writes_nothing(
    server: ApiServer, access: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await run(access, USER) == 0
    before, version = dict(server.objects), server.version
    assert await run(access, USER) == 0
    assert (server.objects, server.version) == (before, version)
    assert "Secret store/writer of flowvis: kept" in capsys.readouterr().out


@pytest.mark.parametrize("lost", [HERE, THERE])
async def test_what_is_left_of_a_password_comes_back(
    server: ApiServer, access: str, lost: tuple[str, str]
) -> None:
    assert await run(access, USER) == 0
    before = texts(server, lost)
    server.remove(server.objects["v1", "secrets", *lost])
    assert await run(access, USER) == 0
    assert texts(server, lost) == before


@pytest.mark.parametrize("password", ["a&b<c>\"d'e]]>", "$(id) %s ö 密", "ends in a line\n"])
async def test_one_of_ones_own_is_taken_as_it_is(
    server: ApiServer, access: str, password: str
) -> None:
    put(server, HERE, password=password, other="stays")
    assert await run(access, USER) == 0
    assert texts(server, HERE) == complete(password) | {"other": "stays"}
    assert server.objects["v1", "secrets", *HERE]["metadata"]["annotations"] == {"mine": "x"}
    assert texts(server, THERE) == complete(password)


async def test_a_hash_that_is_not_of_the_password_is_put_right(
    server: ApiServer, access: str
) -> None:
    put(server, HERE, password="changed", password_sha256_hex="0" * 64)
    assert await run(access, USER) == 0
    assert texts(server, HERE) == complete("changed")


@pytest.mark.parametrize(
    ("both", "problem"),
    [
        (({"password": "a"}, {"password": "b"}), "daemon/writer: password: not that of Secret sto"),
        (({"password": ""}, {}), "store/writer: password: empty"),
        (({}, {"username": "root"}), "daemon/writer: username: 'root': the user is 'flowvis'"),
    ],
)
async def test_what_contradicts_is_an_error_and_stays(
    server: ApiServer,
    access: str,
    both: tuple[dict[str, str], dict[str, str]],
    problem: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for place, given in zip((HERE, THERE), both, strict=True):
        put(server, place, **given)
    version = server.version
    assert await run(access, USER) == 1
    assert problem in capsys.readouterr().err
    assert server.version == version


async def test_two_at_a_time_agree(server: ApiServer, access: str) -> None:
    codes = await asyncio.gather(*(run(access, USER) for _ in range(3)))
    assert codes == [0, 0, 0]
    made = texts(server, HERE)
    assert texts(server, THERE) == made == complete(made["password"])


async def test_one_that_came_between_is_taken(server: ApiServer, access: str) -> None:
    """Another one's Secret appears after we looked, before we write."""

    def between(request: Any) -> None:
        if request.method == "POST" and ("v1", "secrets", *HERE) not in server.objects:
            put(server, HERE, **complete("theirs"))

    server.faults.answer = between
    assert await run(access, USER) == 0
    assert texts(server, HERE) == texts(server, THERE) == complete("theirs")


async def test_a_right_that_is_missing_is_said(
    server: ApiServer, access: str, capsys: pytest.CaptureFixture[str]
) -> None:
    server.faults.answer = lambda _: status(403, "secrets is forbidden")
    assert await run(access, USER) == 1
    assert "403 secrets is forbidden" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["flowvis", "=a/b", "flowvis=", "flowvis=a", "flowvis=a/b,,c/d"])
def test_what_is_not_written_so_is_said(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["credentials", text])
    assert repr(text) in capsys.readouterr().err
