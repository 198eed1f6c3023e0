"""A collector on loopback that can be made to behave in every way that collectors do."""

import asyncio
import socket
import struct
from collections.abc import Iterable
from typing import Any, Self

from flowvis.batch import address_text
from flowvis.fields import EXPORTED
from flowvis.ipfix.buffer import RecordBuffer
from flowvis.ipfix.collector import CollectorSession
from flowvis.ipfix.events import Event, SequenceGap, TemplateLearned
from flowvis.native import StringTable
from flowvis.transport.address import CollectorAddress
from ports import free_port

Row = dict[str, Any]


class Collector:
    """Listens on a free port, or on the one that it had before, and keeps what it reads."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.sessions = 0
        self.templates = 0
        self.gaps = 0
        self.fields: list[int] = []
        """How many there are in each template that came."""
        self.reading = asyncio.Event()
        self.reading.set()
        self._server: asyncio.Server | None = None
        self._readers: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self.port = free_port()

    @property
    def address(self) -> CollectorAddress:
        return CollectorAddress("127.0.0.1", self.port, "tcp")

    @property
    def active(self) -> bool:
        """Whether any session stands."""
        return bool(self._readers)

    async def __aenter__(self) -> Self:
        await self.come()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.go_away()

    async def come(self) -> None:
        """Listen."""
        self._crashed = False
        listener = socket.create_server(("127.0.0.1", self.port))
        if not self.reading.is_set():
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self._server = await asyncio.start_server(self._session, sock=listener)

    async def go_away(self) -> None:
        """End in good order: say so, read until the exporters have finished."""
        if self._server is not None:
            self._server.close()
        for writer in self._readers.values():
            writer.write_eof()
        if self._readers:
            await asyncio.wait(self._readers)

    async def crash(self) -> None:
        """End without a word, and without reading what has arrived."""
        if self._server is not None:
            self._server.close()
        self._crashed = True
        for writer in self._readers.values():
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.transport.abort()
        self.reading.set()
        if self._readers:
            await asyncio.wait(self._readers)

    async def _session(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._readers[task] = writer
        self.sessions += 1
        try:
            await self._read(reader)
        finally:
            del self._readers[task]
            writer.close()

    def _note(self, events: Iterable[Event]) -> None:
        for event in events:
            if isinstance(event, TemplateLearned):
                self.templates += 1
                self.fields.append(event.fields)
            self.gaps += isinstance(event, SequenceGap)

    async def _read(self, reader: asyncio.StreamReader) -> None:
        buffer = RecordBuffer(EXPORTED, StringTable())
        session = CollectorSession("exporter", buffer)
        await self.reading.wait()
        while not self._crashed and (data := await reader.read(1 << 16)):
            self._note(session.receive(data))
            self._keep(buffer)
        if not self._crashed:
            session.eof()

    def _keep(self, buffer: RecordBuffer) -> None:
        batch = buffer.batch()
        names = [field.name for field in EXPORTED]
        columns = []
        for field in EXPORTED:
            column = batch[field.name]
            if field.kind.shape:
                columns.append([address_text(bytes(row)) for row in column])
            elif field.kind.value == "text":
                columns.append(batch.texts(field.name))
            else:
                columns.append(column.tolist())
        self.rows += [
            dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)
        ]
        buffer.clear()


class DatagramCollector(Collector, asyncio.DatagramProtocol):
    """One that listens on a UDP port, and forgets all templates when it goes away."""

    @property
    def address(self) -> CollectorAddress:
        return CollectorAddress("127.0.0.1", self.port, "udp")

    async def come(self) -> None:
        """Listen."""
        loop = asyncio.get_running_loop()
        self.refreshed = 0
        self._sessions: dict[tuple[str, int], CollectorSession] = {}
        self._buffer = RecordBuffer(EXPORTED, StringTable())
        place = ("127.0.0.1", self.port)
        self._transport, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=place)

    async def go_away(self) -> None:
        """End; nobody can be told."""
        self._transport.close()
        await asyncio.sleep(0)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        if addr not in self._sessions:
            self.sessions += 1
            self._sessions[addr] = CollectorSession("exporter", self._buffer, datagrams=True)
        self._note(self._sessions[addr].receive_datagrams([data]))
        self.refreshed = sum(each.stats.templates_repeated for each in self._sessions.values())
        self._keep(self._buffer)
