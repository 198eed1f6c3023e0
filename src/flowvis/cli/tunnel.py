"""A forwarded port of a Pod as a socket.

That is the subresource `portforward` over a WebSocket (v4.channel.k8s.io): a byte before each
message is its channel, 0 for data and 1 for what goes wrong, and the first message of each has the
port's number. The `kubernetes` package has it as well; it loses what came last when the Pod's side
ends first, and leaves sockets open.
"""

import socket
import threading
from contextlib import suppress
from typing import Any

PIECE = 64 << 10
DATA, ERROR = 0, 1
JOIN_S = 2.0


class Tunnel:
    """Passes bytes between `sock`, which is for whoever uses it, and a WebSocket."""

    def __init__(self, websocket: Any) -> None:
        """`websocket`: an open one of the package websocket-client, which is ours from now on."""
        self._websocket = websocket
        self.sock, self._inside = socket.socketpair()
        self.problem = ""
        """What the API server says against it."""
        self._ended = threading.Lock()
        self._threads = [
            threading.Thread(target=self._run, args=(way,), name="tunnel", daemon=True)
            for way in (self._there, self._back)
        ]
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        """Wait until it has ended, after `sock` was closed."""
        for thread in self._threads:
            thread.join(JOIN_S)

    def _run(self, way: Any) -> None:
        """Go one way to its end, which is that of the other as well; who ends last closes."""
        from websocket import WebSocketException

        with suppress(OSError, WebSocketException):
            way()
        with suppress(OSError):
            self._inside.shutdown(socket.SHUT_RDWR)  # what is in it can still be read
        with suppress(OSError, AttributeError):
            self._websocket.sock.shutdown(socket.SHUT_RDWR)
        if not self._ended.acquire(blocking=False):
            self._inside.close()
            self._websocket.shutdown()

    def _there(self) -> None:
        while data := self._inside.recv(PIECE):
            self._websocket.send_binary(bytes([DATA]) + data)

    def _back(self) -> None:
        from websocket import ABNF

        numbered: set[int] = set()
        while True:
            opcode, message = self._websocket.recv_data()
            if opcode == ABNF.OPCODE_CLOSE:
                return
            if opcode != ABNF.OPCODE_BINARY or not message:
                continue
            channel, data = message[0], message[1:]
            if channel not in numbered:
                numbered.add(channel)
            elif channel == ERROR:
                self.problem = data.decode(errors="replace").strip()
                return
            elif channel == DATA:
                self._inside.sendall(data)
