"""flowctl open: the console for a browser of this machine, without giving it our rights."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import pytest
from yarl import URL

from aggregator.records import records
from aggregator.served import served
from flowvis.cli.client import ControlClient
from flowvis.cli.flowctl import main
from flowvis.cli.forwarding import forwarding
from waiting import PATIENCE_S

HEADER = {"X-Flowvis": "1"}


@asynccontextmanager
async def opened(path: Path) -> AsyncIterator[tuple[aiohttp.ClientSession, str, str]]:
    """A console over a control socket: a browser, its origin, and the token of its link."""
    async with served(path) as (api, history, _):
        history.put(records({"sourcePodName": "client"}))
        async with (
            forwarding(ControlClient(api.path).way) as link,
            aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as browser,
        ):
            parts = urlsplit(link)
            assert parts.hostname == "127.0.0.1"
            yield browser, f"http://{parts.netloc}", parts.fragment.removeprefix("token=")


async def log_in(browser: aiohttp.ClientSession, url: str, token: str) -> int:
    body = {"token": token}
    async with browser.post(f"{url}/api/v1/session", json=body, headers=HEADER) as answer:
        return answer.status


async def test_the_link_logs_a_browser_in(tmp_path: Path) -> None:
    async with opened(tmp_path) as (browser, url, token):
        assert await log_in(browser, url, token) == 200
        async with browser.get(f"{url}/api/v1/status", headers=HEADER) as answer:
            assert await answer.json() == {"version": "1"}
        sql = {"query": "SELECT 1"}
        async with browser.post(f"{url}/api/v1/sql", json=sql, headers=HEADER) as answer:
            assert (await answer.json())["rows"]
        async with browser.get(f"{url}/api/v1/status?moon=1", headers=HEADER) as answer:
            assert answer.status == 400
            assert "moon" in (await answer.json())["error"]["message"]


async def test_others_of_this_machine_see_nothing(tmp_path: Path) -> None:
    async with opened(tmp_path) as (browser, url, token):
        assert await log_in(browser, url, token[:-1]) == 401
        paths = ("/api/v1/status", "/api/v1/stream", "/flows?limit=1", "/api", "/%61pi/v1/status")
        for path in (*paths, "//api/v1/status", "/assets/../flows", "/assets/%2e%2e/flows"):
            asked = URL(url + path, encoded=True)
            async with browser.get(asked, headers=HEADER) as answer:
                assert answer.status in {401, 404}, path
                assert "client" not in await answer.text()
        assert await log_in(browser, url, token) == 200
        async with browser.get(f"{url}/api/v1/status") as answer:
            assert answer.status == 403, "a page of another origin had the browser ask"
        evil = HEADER | {"Origin": "http://evil.example"}
        async with browser.get(f"{url}/api/v1/status", headers=evil) as answer:
            assert answer.status == 403
        renamed = HEADER | {"Host": "evil.example"}
        async with browser.get(f"{url}/api/v1/status", headers=renamed) as answer:
            assert answer.status == 403, "a name of somebody else's that leads here"


async def test_records_come_as_they_are_written(tmp_path: Path) -> None:
    async with opened(tmp_path) as (browser, url, token):
        await log_in(browser, url, token)
        async with browser.get(f"{url}/flows?limit=1", headers=HEADER) as answer:
            assert answer.status == 200
            assert json.loads(await answer.text())["sourcePodName"] == "client"


async def test_an_aggregator_that_is_away(tmp_path: Path) -> None:
    way = ControlClient(tmp_path / "none.sock").way
    async with forwarding(way) as link, aiohttp.ClientSession() as browser:
        url = f"http://{urlsplit(link).netloc}"
        async with browser.get(f"{url}/") as answer:
            assert answer.status == 503
            assert "none.sock" in (await answer.json())["error"]["message"]


def test_a_console_of_nobody_is_not_served(tmp_path: Path) -> None:
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text("")
    for where, problem in (
        (["--socket", str(tmp_path / "none.sock")], "no aggregator answers at"),
        (["--socket", str(tmp_path)], "is not a socket"),
        (["--kubeconfig", str(kubeconfig)], "kubeconfig"),
    ):
        command = [sys.executable, "-m", "flowvis.cli.flowctl", *where, "open", "--print"]
        ended = subprocess.run(command, capture_output=True, timeout=PATIENCE_S, check=False)
        assert (ended.returncode, ended.stdout) == (1, b"")
        assert problem in ended.stderr.decode()


def test_the_link_of_a_server_is_its_own(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLOWVIS_TOKEN", "admin-0123456789abcdef")
    server = ["--server", "https://flows.example:10348"]
    assert main([*server, "open", "--print"]) == 0
    expected = "https://flows.example:10348/#token=admin-0123456789abcdef\n"
    assert capsys.readouterr().out == expected
    monkeypatch.delenv("FLOWVIS_TOKEN")
    assert main([*server, "open"]) == 1
    assert "--token-file" in capsys.readouterr().err


async def test_a_port_that_is_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with served(tmp_path) as (api, _, _), forwarding(ControlClient(api.path).way) as link:
        port = str(urlsplit(link).port)
        arguments = ["--socket", str(api.path), "open", "--print", "--port", port]
        assert await asyncio.to_thread(main, arguments) == 1
    assert f"--port {port}" in capsys.readouterr().err


BROWSER = """
import http.client, json, sys, urllib.parse
url = urllib.parse.urlsplit(sys.argv[1])
found = []
for _ in range(2):
    connection = http.client.HTTPConnection(url.netloc)
    connection.request("GET", url.path)
    answer = connection.getresponse()
    found.append([answer.status, answer.getheader("Location")])
print(json.dumps([sys.argv[1], found]), file=sys.stderr)
"""


async def test_a_browser_has_no_token_in_its_command_line(tmp_path: Path) -> None:
    """All of this machine can read it, for as long as the browser runs."""
    browser = tmp_path / "browser.py"
    browser.write_text(BROWSER)
    environment = os.environ | {
        "FLOWVIS_TOKEN": "admin-0123456789abcdef",
        "BROWSER": f"{sys.executable} {browser} %s",
    }
    command = [sys.executable, "-m", "flowvis.cli.flowctl"]
    command += ["--server", "https://flows.example:10348", "open"]
    running = await asyncio.create_subprocess_exec(
        *command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    async with asyncio.timeout(PATIENCE_S):
        output, errors = await running.communicate()
    link = "https://flows.example:10348/#token=admin-0123456789abcdef"
    assert (running.returncode, output.decode()) == (0, f"{link}\n")
    said, warning = errors.decode().splitlines()
    address, answers = json.loads(said)
    assert "admin-0123456789abcdef" not in address
    assert answers == [[303, link], [410, None]]
    assert "two asked for the link" in warning
