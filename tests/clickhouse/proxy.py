"""A TCP relay that loses connections where a test wants it to."""

import contextlib
import select
import socket
import struct
import threading
from dataclasses import dataclass


@dataclass
class Fault:
    """Cut a connection once the client has sent so many bytes, or never."""

    after: int | None = None
    answered: bool = False
    """Cut only when the server answers after that: it has done what it was reported."""
    abandon: bool = False
    """Leave the server's half open: it goes on waiting, as after a crash of our machine."""


class Proxy:
    """Relays connections to a server, one at a time, on a thread of its own."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.fault = Fault()
        self.sent = 0
        """Bytes that the clients have sent since `reset`."""
        self.abandoned: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def reset(self, fault: Fault | None = None) -> None:
        self.sent = 0
        self.fault = fault or Fault()

    def close(self) -> None:
        self._stopping.set()
        self._thread.join(10)
        self._listener.close()
        for held in self.abandoned:
            held.close()

    def _serve(self) -> None:
        self._listener.settimeout(0.1)
        workers = []
        while not self._stopping.is_set():
            with contextlib.suppress(TimeoutError):
                client, _ = self._listener.accept()
                workers.append(threading.Thread(target=self._relay, args=(client,), daemon=True))
                workers[-1].start()
        for worker in workers:
            worker.join(10)

    def _relay(self, client: socket.socket) -> None:
        try:
            server = socket.create_connection(("127.0.0.1", self.target))
        except OSError:
            client.close()
            return
        with contextlib.suppress(OSError):
            self._pump(client, server)
        if self.fault.abandon:
            self.abandoned.append(server)
        else:
            server.close()
        _reset(client)  # last: who is reported it may set another fault

    def _pump(self, client: socket.socket, server: socket.socket) -> None:
        while not self._stopping.is_set():
            fault = self.fault
            readable, _, _ = select.select([client, server], [], [], 0.1)
            if client in readable:
                data = client.recv(1 << 16)
                if not data:
                    return
                room = len(data)
                if fault.after is not None and not fault.answered:
                    room = min(room, fault.after - self.sent)
                server.sendall(data[:room])
                self.sent += room
                if self._due(fault) and not fault.answered:
                    return
            if server in readable:
                data = server.recv(1 << 16)
                if not data or (fault.answered and self._due(fault)):
                    return
                client.sendall(data)

    def _due(self, fault: Fault) -> bool:
        return fault.after is not None and self.sent >= fault.after


def _reset(connection: socket.socket) -> None:
    """Close with a reset, as a broken network does."""
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()
