"""The demo: flows as they arrive, the verdict, and where to look further."""

import asyncio
import json
import secrets
import subprocess
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

from rich.console import Console

from flowvis.lab.configuration import API_PORT, CONTROL_SOCKET
from flowvis.lab.doors import Connect, Doors, Doorway
from flowvis.lab.live import LiveTable
from flowvis.lab.options import Options
from flowvis.lab.processes import FLOWCTL
from flowvis.lab.session import Lab

TOKEN_BYTES = 24
PIPED = 160  # columns where the output is no terminal: no name of the lab is shortened
SETTLED_S = 4.0  # what has ended by then is on the screen

QUERIES = """\
    flowctl flows 'verdict = denied' --since 1h --follow
    flowctl map --by namespace -o matrix
    flowctl top 'type = to-external' --by src.workload,dst.ip
    flowctl diff --since 1h
    flowctl explain 'verdict = dropped'
    flowctl status"""

FURTHER = """\
Look further:
  flowctl lab demo                         it stays, at a terminal, with the console
  flowctl lab run --duration 30s -o json   unattended, every byte checked"""

KEPT = """\
The lab goes on until you press Ctrl-C. In another terminal:
{queries}
    flowctl lab shell node-1   a shell on a node: conntrack -L"""


async def show(options: Options, console: Console) -> int:
    """Show a run; return the exit code."""
    lab = Lab(options, lambda line: console.print(line, style="dim"))
    token = secrets.token_urlsafe(TOKEN_BYTES)
    await lab.open(token)
    async with _open(_doorways(options.doors)):
        return await _shown(lab, options, console, token)


async def _shown(lab: Lab, options: Options, console: Console, token: str) -> int:
    api = f"http://127.0.0.1:{options.doors.api_port}"
    link = f"{api}/#token={token}"
    console.print(f"\nThe console, in a browser of this machine:\n  {link}", soft_wrap=True)
    async with _flows(console):
        await lab.have_traffic()
        await asyncio.sleep(SETTLED_S)
    if options.keep:
        text = kept(options.doors.refused, api, token)
        console.print(f"\n{text}", f"\nThe console:\n  {link}", sep="\n", soft_wrap=True)
        while True:
            await lab.have_traffic()
    report = await lab.close()
    console.print("\n", report.render(), f"\n{FURTHER}", sep="", soft_wrap=True)
    return 0 if report.ok else 1


def kept(refused: str, api: str, token: str) -> str:
    """Say what to do while the lab stays; `refused` is why it has no control socket outside.

    Without one flowctl asks the API, as it does of an aggregator elsewhere.
    """
    if not refused:
        return KEPT.format(queries=QUERIES)
    by_the_api = f"    export FLOWVIS_SERVER={api} FLOWVIS_TOKEN={token}"
    reason = f"The first line stands for the control socket: {refused}."
    return KEPT.format(queries=f"{by_the_api}\n{QUERIES}") + f"\n{reason}"


def _doorways(doors: Doors) -> list[Doorway]:
    """Return what leads from the machine's doors to the aggregator."""
    places: list[tuple[int, Connect]] = [
        (doors.api, partial(asyncio.open_connection, "127.0.0.1", API_PORT)),
        (doors.control, partial(asyncio.open_unix_connection, CONTROL_SOCKET)),
    ]
    return [Doorway(descriptor, connect) for descriptor, connect in places if descriptor >= 0]


@asynccontextmanager
async def _open(doorways: list[Doorway]) -> AsyncIterator[None]:
    async with AsyncExitStack() as ends:
        for doorway in doorways:
            await doorway.open()
            ends.push_async_callback(doorway.close)
        yield


@asynccontextmanager
async def _flows(console: Console) -> AsyncIterator[None]:
    """Print flows while the body runs, as `flowctl flows --follow` gives them."""
    process = await asyncio.create_subprocess_exec(
        *FLOWCTL, "flows", "--follow", "-o", "json", stdout=subprocess.PIPE
    )
    printing = asyncio.create_task(_print(process, console))
    try:
        yield
    finally:
        process.terminate()
        await process.wait()
        await printing


async def _print(process: asyncio.subprocess.Process, console: Console) -> None:
    if process.stdout is None:
        raise ValueError("the process has no pipe")
    fitted = console.is_terminal
    table = LiveTable(console.width if fitted else PIPED)
    console.print("\n", table.heading(), sep="", soft_wrap=not fitted)
    async for line in process.stdout:
        record = json.loads(line)
        if "lost" not in record:
            console.print(table.line(record), no_wrap=True, crop=fitted, soft_wrap=not fitted)
