"""What a demo that stays says."""

import asyncio
import io
import json
import shlex
import sys

import pytest
from rich.console import Console

from flowvis.lab import demo

RECORD = {
    "sourcePodName": "report-29333700-h8k2p",
    "sourcePodNamespace": "batch",
    "destinationPodName": "web-5f6c-b",
    "destinationPodNamespace": "shop",
    "destinationTransportPort": 8080,
    "destinationServicePortName": "shop/store:http",
    "protocolIdentifier": 6,
    "flowType": 2,
    "ingressNetworkPolicyRuleAction": 3,
    "egressNetworkPolicyRuleAction": 0,
    "octetDeltaCount": 100,
    "reverseOctetDeltaCount": 0,
    "throughput": 23_500,
    "reverseThroughput": 0,
}
API = "http://127.0.0.1:40123"


def test_commands_need_nothing_where_there_is_a_control_socket() -> None:
    assert "FLOWVIS" not in demo.kept("", API, "t0ken")


def test_without_a_control_socket_commands_ask_the_api() -> None:
    text = demo.kept("cannot make the directory /run/x: Permission denied", API, "t0ken")
    (line,) = (line for line in text.splitlines() if "export" in line)
    given = dict(word.split("=", 1) for word in shlex.split(line)[1:])
    assert given == {"FLOWVIS_SERVER": API, "FLOWVIS_TOKEN": "t0ken"}
    assert "/run/x: Permission denied" in text


@pytest.mark.parametrize(("terminal", "whole"), [(False, True), (True, False)])
async def test_names_are_whole_where_the_output_is_no_terminal(terminal: bool, whole: bool) -> None:
    written = io.StringIO()
    console = Console(file=written, width=80, force_terminal=terminal)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", f"print({json.dumps(RECORD)!r})", stdout=asyncio.subprocess.PIPE
    )
    await demo._print(process, console)
    await process.wait()
    assert ("batch/report-29333700-h8k2p" in written.getvalue()) is whole
    assert len(written.getvalue().strip().splitlines()) == 2
