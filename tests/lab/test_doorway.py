"""What passes through a lab's doors, whatever the garbage collector finds meanwhile."""

import asyncio
import gc
import socket
from functools import partial
from pathlib import Path

from flowvis.lab.doors import Doorway
from waiting import PATIENCE_S


async def test_who_has_asked_all_still_gets_the_answer(tmp_path: Path) -> None:
    asked, now = asyncio.Event(), asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.read() == b"a question"
        asked.set()
        await now.wait()
        writer.write(b"an answer")
        writer.close()

    inner, outer = tmp_path / "inner", tmp_path / "outer"
    server = await asyncio.start_unix_server(answer, inner)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(outer))
    listener.setblocking(False)
    doorway = Doorway(listener.detach(), partial(asyncio.open_unix_connection, inner))
    await doorway.open()
    reader, writer = await asyncio.open_unix_connection(outer)
    writer.write(b"a question")
    writer.write_eof()
    async with asyncio.timeout(PATIENCE_S):
        await asked.wait()
        gc.collect()
        now.set()
        assert await reader.read() == b"an answer"
    writer.close()
    await doorway.close()
    server.close()
