"""One group of the kernel's packet log (NFLOG)."""

from flowvis.denials.nflog import LogDecoder
from flowvis.denials.packets import Packets
from flowvis.denials.prefixes import Prefixes
from flowvis.denials.sources.sockets import LogSocket

RECEIVE_BYTES = 8 << 20
"""Asked of the kernel for waiting packets: some twenty thousand, two seconds of a flood."""


class PacketLog:
    """The packets that rules log to a group of the network namespace where `open` was called."""

    def __init__(
        self, group: int, prefixes: Prefixes, *, receive_bytes: int = RECEIVE_BYTES
    ) -> None:
        self.group = group
        self._decoder = LogDecoder(prefixes)
        self.stats = self._decoder.stats
        self._receive_bytes = receive_bytes
        self._socket: LogSocket | None = None

    def open(self) -> None:
        """Listen to the group; SystemRefused with the remedy when that may not be."""
        self._decoder.restart()
        self._socket = LogSocket(self.group, self._receive_bytes)

    def judge_by(self, prefixes: Prefixes) -> None:
        """Tell by other prefixes what denied a packet."""
        self._decoder.judge_by(prefixes)

    def unbind(self) -> None:
        """Hear nothing more; what has been logged until now can still be read."""
        self._opened().unbind()

    def close(self) -> None:
        """Listen no more; may be called again."""
        if self._socket is not None:
            self._socket.close()
        self._socket = None

    @property
    def is_open(self) -> bool:
        """Whether it listens."""
        return self._socket is not None

    def fileno(self) -> int:
        """The descriptor that becomes readable when there are packets."""
        return self._opened().fileno()

    def read(self, now_ms: int) -> Packets:
        """Some of the packets that have arrived; does not block."""
        data, overruns = self._opened().read()
        self.stats.overruns += overruns
        return self._decoder.decode(data, now_ms)

    def _opened(self) -> LogSocket:
        if self._socket is None:
            raise ValueError(f"NFLOG group {self.group} is not open")
        return self._socket
