"""flowctl open: the console in a browser, logged in."""

import argparse
import asyncio
import sys
import webbrowser
from contextlib import suppress

from flowvis.cli.client import Client, Server, Way
from flowvis.cli.command import Commands, Connect, add_command
from flowvis.cli.forwarding import forwarding
from flowvis.cli.handover import handing_over
from flowvis.errors import SettingsError, SystemRefused

BROWSER_S = 60.0  # until a browser that was started asks
AGAIN_S = 2.0  # in which one that comes too late is told so


def add_arguments(commands: Commands, connect: Connect) -> None:
    """Add the command's parser."""
    parser = add_command(
        commands,
        "open",
        "the console in a browser, logged in",
        "Print a link to the console and open it, where there is a browser. The link has a token: "
        "whoever has the link sees what you may see. For --server it is the server's own; else the "
        "console is served on a port of this machine, until Ctrl-C.",
        "                       # the aggregator of this machine",
        "--context prod         # that of a cluster, through its API server",
        "--print                # only the link",
        positional="",
    )
    parser.add_argument("--print", action="store_true", help="open no browser")
    parser.add_argument(
        "--port", type=_port, default=0, help="the port on this machine (any free one)"
    )
    parser.set_defaults(run=lambda options: run(options, connect(options)))


def run(options: argparse.Namespace, client: Client) -> int:
    """Print the link, and serve what it leads to."""
    way = client.way
    if isinstance(way, Server):
        if not way.token:
            raise SettingsError(["--server: a browser needs a token: --token-file, FLOWVIS_TOKEN"])
        asyncio.run(_show(f"{way.url}/#token={way.token}", options))
        return 0
    client.reach()  # else only the browser would say that nobody is there
    asyncio.run(_serve(way, options))
    return 0


async def _serve(way: Way, options: argparse.Namespace) -> None:
    try:
        async with forwarding(way, options.port) as link:
            print("flowctl: until Ctrl-C", file=sys.stderr)
            await _show(link, options)
            await asyncio.Event().wait()
    except OSError as error:
        raise SystemRefused(f"--port {options.port}: {error.strerror}: give another") from error


async def _show(link: str, options: argparse.Namespace) -> None:
    """Print the link, and have a browser open it, as one that only the browser is told."""
    print(link, flush=True)
    if options.print:
        return
    async with handing_over(link) as (address, handover):
        if not await asyncio.to_thread(webbrowser.open, address):
            return
        for event, patience_s in ((handover.taken, BROWSER_S), (handover.again, AGAIN_S)):
            with suppress(TimeoutError):
                async with asyncio.timeout(patience_s):
                    await event.wait()
        if not handover.taken.is_set():
            print("flowctl: no browser came: open the link in one", file=sys.stderr)
        elif handover.again.is_set():
            print(
                "flowctl: two asked for the link: if the browser is not logged in, somebody else "
                "of this machine is",
                file=sys.stderr,
            )


def _port(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and int(text[:6]) < 1 << 16):
        raise argparse.ArgumentTypeError(f"{text!r}: a port, from 0 (any) to 65535")
    return int(text)
