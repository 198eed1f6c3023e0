"""The client's end of one session.

A collector's FIN means that it goes away but still reads: the message under way is completed, no
other is begun, and the connection is closed. A session on trial is looked into first: perhaps the
collector has closed both ways, and reads nothing more.
"""

import asyncio
import contextlib
import errno
import fcntl
import os
import socket
import struct
import termios
from collections.abc import Callable

from flowvis.errors import PeerError
from flowvis.transport.channel import ROOM, Channel
from flowvis.transport.keepalive import give_up, keep_alive

GOING_AWAY = "going-away"
"""Why a session is over when the collector has ended it in good order."""
CLOSED = "closed"
"""Why it is over when we have."""

CONFIRM_S = 0.5  # for a server that sends no session tickets, and so never confirms
STALLED_S = 60.0  # a collector that does not take one message in so long is gone
READ_BYTES = 16 << 10  # collectors say little beside TLS's own messages
LOOK_S = 0.01  # between two looks at what a collector has acknowledged
LOOK_LONGEST_S = 1.0
MAX_MESSAGE = 65535  # bytes: a stream has no other limit than the length field's


class Connection:
    """Sends messages over a connected, non-blocking socket, which it owns."""

    datagrams = False

    def __init__(
        self, sock: socket.socket, channel: Channel, on_lost: Callable[[str], None]
    ) -> None:
        self.alive = True
        """Whether messages can be sent."""
        self.max_message = MAX_MESSAGE
        self.reason = ""
        """Why not: a fixed short word."""
        self.detail = ""
        self.trial_s = 0.0
        """How long, from its beginning, it is on trial."""
        self.probe = b""
        """A message that changes nothing, to look into a FIN with; empty: believe the FIN."""
        self.on_data: Callable[[memoryview], None] | None = None
        """Takes what the collector says, where it says something; its PeerError ends the session.
        The bytes are overwritten after the call."""
        self.lasted_s = 0.0
        """How long it had lived when it was over."""
        self.over = asyncio.Event()
        """Set when it is no longer alive."""
        self._sock = sock
        self._channel = channel
        self._on_lost = on_lost
        self._data = memoryview(bytearray(READ_BYTES))
        self._plain = memoryview(bytearray(READ_BYTES + ROOM))
        self._out = b""
        self._sending = False
        self._standing = False
        self._open = True
        self._broken = 0  # errno that the kernel has told, while there is more to read
        self._look: asyncio.Task[bool] | None = None
        self._changed = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()
        keep_alive(sock)
        give_up(sock, STALLED_S)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # messages are whole
        self._loop.add_reader(sock, self._readable)

    async def establish(self) -> None:
        """Do the handshake, if any; PeerError says why there is no session."""
        self._flush()
        while self.alive and not self._channel.ready:
            await self._change()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CONFIRM_S):
                while self.alive and not self._channel.confirmed:
                    await self._change()
        self._standing = self.alive
        if not self._standing:
            raise PeerError(self.reason, self.detail)

    @property
    def protocol(self) -> str:
        """The application protocol that was agreed on; "" for none."""
        return self._channel.protocol()

    async def send(self, message: bytes) -> bool:
        """Send one message; False if the peer cannot have received it whole."""
        if not self.alive:
            return False
        self._sending = True
        try:
            self._out += self._channel.write(message)
            self._flush()
            await self._drain(STALLED_S)
        except PeerError as error:
            self._lose(error.reason, str(error))
        except asyncio.CancelledError:
            self._lose("cancelled", "a message was cut off")
            raise
        finally:
            self._sending = False
        complete = self._open and not self._out
        self._changed.set()
        if self.over.is_set() and self._look is None:
            self._leave()
        return complete

    async def read_all(self) -> bool:
        """Whether a collector that ended a session on trial has read what it was sent.

        What it has not read when it closes both ways, and whatever comes then, is answered by a
        reset; who still reads acknowledges (RFC 9293 section 3.10.7.4). So it is sent a probe.
        """
        return self._look is not None and await asyncio.shield(self._look)

    async def _look_into(self) -> bool:
        try:
            async with asyncio.timeout(LOOK_LONGEST_S):
                while self._sending:
                    await self._change()
                self._out += self._channel.write(self.probe)
                self._flush()
                while self._open and (self._out or not self._acknowledged()):  # noqa: ASYNC110
                    await asyncio.sleep(LOOK_S)
        except (TimeoutError, PeerError):
            self.close()
        reads = self._open
        self._leave()
        return reads

    def _acknowledged(self) -> bool:
        """Whether the peer's kernel has all that was sent; a reset closes the connection."""
        if self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self.close()
            return False
        unsent = fcntl.ioctl(self._sock, termios.TIOCOUTQ, bytes(4))  # SIOCOUTQ, tcp(7)
        return struct.unpack("i", unsent) == (0,)

    async def finish(self, drain_s: float) -> bool:
        """Say that nothing more comes; whether the peer's FIN followed, so that it has read all."""
        if not self.alive:
            return False
        self._standing = False
        self.trial_s = 0.0
        try:
            async with asyncio.timeout(drain_s):
                self._out += self._channel.finish()
                self._flush()
                await self._drain(drain_s)
                if self._open:
                    self._sock.shutdown(socket.SHUT_WR)
                await self.over.wait()
        except (TimeoutError, OSError):
            return False
        return self.reason == GOING_AWAY

    def close(self) -> None:
        """Let go of the socket."""
        if self._open:
            self._open = False
            self._loop.remove_reader(self._sock)
            self._loop.remove_writer(self._sock)
            self._sock.close()
        self._end(CLOSED, "closed by us")

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    async def _drain(self, longest_s: float) -> None:
        """Wait until everything is the kernel's, or nothing can be."""
        if not self._out:
            return
        try:
            async with asyncio.timeout(longest_s):
                while self._out and self._open:
                    await self._change()
        except TimeoutError:
            self._lose("stalled", f"took no message in {longest_s:g} s")

    def _readable(self) -> None:
        if not self._open:
            return
        try:
            count = self._sock.recv_into(self._data)
        except (BlockingIOError, InterruptedError):
            self._broken = 0
            return
        except OSError as error:
            self._lose_by(error)
            return
        if not count and self._broken:
            self._lose_by(OSError(self._broken, os.strerror(self._broken)))
            return
        if not count:
            self._loop.remove_reader(self._sock)  # it would be readable for ever
            self._goes_away()
            return
        # With an error uvloop says a single time that there is something: see ServerSession.
        self._broken = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) or self._broken
        if self._broken:
            self._loop.call_soon(self._readable)
        try:
            said = self._channel.receive(self._data[:count], self._plain)
            if len(said) and self.on_data is not None:
                self.on_data(said)
        except PeerError as error:
            self._lose(error.reason, str(error))
            return
        self._flush()
        if self._channel.error:
            self._lose(self._channel.error.reason, str(self._channel.error))
        elif self._channel.ended:
            self._goes_away()
        self._changed.set()

    def _goes_away(self) -> None:
        self._end(GOING_AWAY, "the collector goes away")
        if self.lasted_s >= self.trial_s or not self.probe:
            self._leave()
        elif self._look is None and self._open:
            self._look = asyncio.create_task(self._look_into())

    def _flush(self) -> None:
        """Give the kernel what it takes; the rest follows when it takes more."""
        self._out += self._channel.outgoing()
        self._push()
        if self._out and self._open:
            self._loop.add_writer(self._sock, self._writable)

    def _writable(self) -> None:
        self._push()
        if self._open and not self._out:
            self._loop.remove_writer(self._sock)
        self._changed.set()

    def _push(self) -> None:
        while self._out and self._open:
            try:
                self._out = self._out[self._sock.send(self._out) :]
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                self._lose_by(error)

    def _leave(self) -> None:
        """Close after the peer's FIN, in good order, unless a message is under way."""
        if self._sending or not self._open:
            return
        self._out += self._channel.finish()
        self._push()
        self.close()

    def _lose_by(self, error: OSError) -> None:
        word = errno.errorcode.get(error.errno or 0, "connection").lower()
        self._lose(word, error.strerror or str(error))

    def _lose(self, reason: str, detail: str) -> None:
        self._end(reason, detail)
        self.close()

    def _end(self, reason: str, detail: str) -> None:
        """No message can be sent from now on."""
        self._changed.set()
        if not self.alive:
            return
        self.alive = False
        self.lasted_s = self._loop.time() - self._began
        self.reason, self.detail = reason, detail
        self.over.set()
        if self._standing and reason != CLOSED:
            self._on_lost(reason)
