"""A link for a browser that is not in its command line, where all of this machine can read it.

The command line has a page of this machine instead, which leads to the link, once.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

HOST = "127.0.0.1"
HEADERS = {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}


class Handover:
    """The page, and whether somebody has come."""

    def __init__(self, link: str) -> None:
        self._link = link
        self.path = f"/{secrets.token_urlsafe(32)}"
        self.taken = asyncio.Event()
        self.again = asyncio.Event()
        """Whether somebody came when the link had been given away."""

    async def answer(self, _: web.Request) -> web.Response:
        """Lead on who comes first."""
        if self.taken.is_set():
            self.again.set()
            return web.Response(
                status=410, text="This link has been used: run flowctl open again.\n"
            )
        self.taken.set()
        return web.Response(status=303, headers=HEADERS | {"Location": self._link})


@asynccontextmanager
async def handing_over(link: str) -> AsyncIterator[tuple[str, Handover]]:
    """Serve the page; give its address, which is worth nothing once somebody has come."""
    handover = Handover(link)
    application = web.Application()
    application.router.add_get(handover.path, handover.answer, allow_head=False)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, HOST, 0).start()
        yield f"http://{HOST}:{runner.addresses[0][1]}{handover.path}", handover
    finally:
        await runner.cleanup()
