"""flowctl nodes, against a real control socket."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from flowvis.aggregator.api.application import Application, LocalDoor
from flowvis.aggregator.api.listeners import ControlSocket
from flowvis.aggregator.api.paths import nodes
from flowvis.aggregator.reporters import NodeReports
from flowvis.cli.flowctl import main

REPORTS = (
    NodeReports("node-1", 1, 12345, 98.0, 0, 0, 250.25, 0.1, 7, 12000, 345),
    NodeReports("node-2\x1b[2J", 0, 7, 40.0, 3, 1, 0.0, -0.4),
    NodeReports("node-3", 0, 0, None),
)


async def shown(path: Path, *arguments: str, reports: Any = REPORTS) -> int:
    async def nothing() -> None:
        pass

    routes = nodes.routes(lambda: [report.as_dict(100.0) for report in reports])
    api = ControlSocket(path / "control.sock", Application(routes, LocalDoor()), nothing)
    await api.start()
    try:
        return await asyncio.to_thread(main, ["--socket", str(api.path), "nodes", *arguments])
    finally:
        await api.stop()


async def test_a_line_for_each_node(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert await shown(tmp_path) == 0
    found = capsys.readouterr().out
    lines = [line.split() for line in found.splitlines()]
    assert lines[1] == ["node-1", "2s", "ago", "250.2", "12345", "0", "345", "+0.1", "s"]
    assert lines[2] == ["node-2\\x1b[2J", "1m", "ago", "0.0", "7", "3", "-0.4", "s"]
    assert lines[3] == ["node-3", "never", "0.0", "0", "0"]
    assert found.splitlines()[4:] == [
        "node-2\\x1b[2J: it has no session",
        "node-2\\x1b[2J: 3 of its records never came, by their sequence numbers",
        "node-3: nothing ever came",
    ]
    assert max(map(len, found.splitlines())) <= 80


async def test_json_is_the_answer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert await shown(tmp_path, "-o", "json") == 0
    answer = json.loads(capsys.readouterr().out)
    assert [node["complete"] for node in answer["nodes"]] == [True, False, False]
    assert await shown(tmp_path, reports=()) == 0
    assert "no node is known" in capsys.readouterr().out
