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
from flowvis.cli.layout import Layout
from flowvis.cli.nodes import COLUMNS
from flowvis.ipfix.exporter_report import ExporterReport
from flowvis.ipfix.occupancy import Occupant

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


def test_at_80_cells_names_shorten_and_numbers_stay_whole() -> None:
    name = "ip-10-0-13-{}.eu-central-1.compute.internal"
    largest = 10**9 - 1
    answers = [
        NodeReports(name.format(n), 1, largest, 98.0, 0, 0, 1e6, -0.1, 1, 1, largest).as_dict(100.0)
        | {"conntrack": {"entries": 262_143, "max": 262_144}}
        for n in (200, 201)
    ]
    layout = Layout(COLUMNS, 80, answers)
    for number, line in zip((200, 201), map(str, map(layout.line, answers)), strict=True):
        assert len(line) <= 80
        assert line.startswith(name.format(number)[:14])
        assert line.split().count(str(largest)) == 2
        assert "262143 of 262144" in line


FILLED = (
    NodeReports(
        *("node-1", 1, 9, 98.0),
        report=ExporterReport(900, 1000, 0, 0, 0),
        occupancy=(
            Occupant("shop", "Deployment", "loadgen", True, 700, 690),
            Occupant("", "", "(external)", True, 150, 0),
            Occupant("shop", "StatefulSet", "db\x1b[2J", False, 50, 1),
        ),
    ),
    NodeReports("node-2", 1, 9, 98.0, report=ExporterReport(100, 1000, 0, 0, 0)),
)


async def test_what_fills_the_table_of_one_node(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await shown(tmp_path, reports=FILLED) == 0
    found = capsys.readouterr().out
    assert found.splitlines()[3:] == [
        "node-1: its connection table is 90 % full: shop/loadgen opened 700, 690 of them unanswered"
    ]
    assert await shown(tmp_path, "node-1", reports=FILLED) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[4] == ["WORKLOAD", "KIND", "END", "ENTRIES", "UNANSWERED", "SHARE"]
    assert lines[5:] == [
        ["shop/loadgen", "Deployment", "source", "700", "690", "78", "%"],
        ["(external)", "source", "150", "0", "17", "%"],
        ["shop/db\\x1b[2J", "StatefulSet", "destination", "50", "1", "6", "%"],
    ]
    assert await shown(tmp_path, "node-2", reports=FILLED) == 0
    assert "does not say what fills" in capsys.readouterr().out
    assert await shown(tmp_path, "node-9", reports=FILLED) != 0
    assert "there is no node node-9" in capsys.readouterr().err


YOUNG = (
    NodeReports(
        "node-1", 1, 9, 98.0, ahead_s=-0.04, report=ExporterReport(0, 0, 0, 0, 0), occupancy=()
    ),
    NodeReports("node-2", 1, 9, 98.0, report=ExporterReport(31, 0, 0, 0, 0)),
)


async def test_what_nobody_looked_at_yet_is_no_number(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An exporter's first report is from before its first look; a switch tells no limit."""
    assert await shown(tmp_path, reports=YOUNG) == 0
    first, second = (line.split() for line in capsys.readouterr().out.splitlines()[1:3])
    assert first[-2:] == ["+0.0", "s"]
    assert second[-1] == "31"
    assert await shown(tmp_path, "node-1", reports=YOUNG) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("its exporter found nothing")


async def test_json_is_the_answer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert await shown(tmp_path, "-o", "json") == 0
    answer = json.loads(capsys.readouterr().out)
    assert [node["complete"] for node in answer["nodes"]] == [True, False, False]
    assert await shown(tmp_path, reports=()) == 0
    assert "no node is known" in capsys.readouterr().out
