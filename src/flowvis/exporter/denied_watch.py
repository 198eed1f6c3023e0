"""From the logs of denied packets to the table."""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial

from flowvis.counts import count, gauge
from flowvis.denials.audit import AuditLog
from flowvis.denials.nflog import LogStats
from flowvis.denials.packets import Packets
from flowvis.denials.prefixes import Prefixes
from flowvis.denials.sources.follow import Follower
from flowvis.denials.sources.log import PacketLog
from flowvis.errors import SystemRefused
from flowvis.exporter.export import Exporter
from flowvis.exporter.tables.denied import DeniedTable
from flowvis.runtime.clock import now_ms
from flowvis.runtime.component import end, spawn
from flowvis.runtime.logs import LimitedLog

log = logging.getLogger(__name__)

READ_PAUSE_S = 0.1  # in which packets gather: what is done for each batch costs half a millisecond
READS = 64  # one after the other: more than the kernel keeps for us, and 64 MiB of an audit log
FOLLOW_PAUSE_S = 0.5
RETRY_S = 30.0  # until a group that another program has may be free


@dataclass(slots=True)
class DeniedWatchStats:
    """How the logs of denied packets fare."""

    listening: int = gauge("NFLOG groups that are observed")
    refusals: int = count("Times that a NFLOG group could not be observed")


class DeniedWatch:
    """Component: keeps the table of denied connections as the logs say."""

    name = "denied"

    def __init__(
        self,
        table: DeniedTable,
        exporter: Exporter,
        logs: Sequence[PacketLog],
        follower: Follower | None = None,
        *,
        unanswered_s: Callable[[], Mapping[int, int]] = dict,
    ) -> None:
        """`unanswered_s`: for how long the kernel keeps what nobody answers, by protocol."""
        self.stats = DeniedWatchStats()
        self.logs = tuple(logs)
        self.follower = follower
        self.audit = AuditLog()
        self.table = table
        self._exporter = exporter
        self._unanswered_s = unanswered_s
        self._problem = ""  # why the audit log is not read
        self._log = LimitedLog(log, burst=1)
        self._tasks: list[asyncio.Task[None]] = []

    def logged(self) -> LogStats:
        """What all groups together reported."""
        total = LogStats()
        for one in self.logs:
            for field in fields(LogStats):
                value = getattr(total, field.name) + getattr(one.stats, field.name)
                setattr(total, field.name, value)
        return total

    def judge_by(self, prefixes: Prefixes) -> None:
        """Tell by other prefixes what denied a packet."""
        for one in self.logs:
            one.judge_by(prefixes)

    def bind(self) -> None:
        """Have the kernel keep what it logs, until it is read; a group that is taken is left."""
        for one in self.logs:
            self._open(one)

    def release(self) -> None:
        """Let go of the groups; what they keep is read no more."""
        for one in self.logs:
            if one.is_open:
                one.close()
        self.stats.listening = 0

    async def start(self) -> None:
        """Begin to listen; a group that cannot be observed now is tried again."""
        self.table.kept_for(self._unanswered_s())
        for one in self.logs:
            opened = one.is_open or self._open(one)
            self._tasks.append(spawn(f"NFLOG group {one.group}", self._listen(one, opened=opened)))
        if self.follower is not None:
            self._read_audit(self.follower)
            self._tasks.append(spawn("audit log", self._follow(self.follower)))

    async def stop(self) -> None:
        """Take in what has been logged until now."""
        for task in self._tasks:
            await end(task)
        for one in self.logs:
            if one.is_open:
                one.unbind()
                await _all(partial(self._read, one))
        self.release()
        if self.follower is not None:
            await _all(partial(self._read_audit, self.follower))
            self.follower.close()

    def _open(self, one: PacketLog) -> bool:
        try:
            one.open()
        except SystemRefused as refusal:
            self.stats.refusals += 1
            log.warning("%s", refusal)
            return False
        self.stats.listening += 1
        return True

    async def _listen(self, one: PacketLog, *, opened: bool) -> None:
        """Take in packets as they come, some at a time."""
        while not opened:
            await asyncio.sleep(RETRY_S)
            opened = self._open(one)
        loop = asyncio.get_running_loop()
        readable = asyncio.Event()
        descriptor = one.fileno()
        try:
            while True:
                readable.clear()
                loop.add_reader(descriptor, readable.set)
                await readable.wait()
                loop.remove_reader(descriptor)
                await _all(partial(self._read, one))
                await asyncio.sleep(READ_PAUSE_S)
        finally:
            loop.remove_reader(descriptor)

    def _read(self, one: PacketLog) -> bool:
        """Take in some packets; whether there were any."""
        stats = one.stats
        reported, lost, malformed = stats.packets, stats.lost, stats.malformed
        at_ms = now_ms()
        packets = one.read(at_ms)
        self.table.lost(stats.lost - lost)
        self.table.malformed(stats.malformed - malformed)
        self._take(packets, at_ms)
        return stats.packets > reported

    async def _follow(self, follower: Follower) -> None:
        while True:
            await _all(partial(self._read_audit, follower))
            await asyncio.sleep(FOLLOW_PAUSE_S)

    def _read_audit(self, follower: Follower) -> bool:
        """Take in some lines of the audit log; whether there were any."""
        try:
            lines = follower.read()
        except OSError as error:
            if str(error) != self._problem:
                log.warning("the audit log is not read: %s", error)
            self._problem = str(error)
            return False
        self._problem = ""
        at_ms = now_ms()
        self._take(self.audit.parse(lines, at_ms), at_ms)
        return bool(lines)

    def _take(self, packets: Packets, at_ms: int) -> None:
        """Let the table take packets in; where that fails, it costs no more than these."""
        try:
            self.table.add(packets, at_ms)
        except Exception as error:  # noqa: BLE001  whatever it is, the next ones come in
            left = self.table.settle()
            name = type(error).__name__
            text = "a defect of ours over denied packets: %s: %s; %d of %d are left out"
            parts = (name, error, left, len(packets))
            self._log.log(logging.ERROR, name, text, *parts, error=error)
        self._exporter.look()


@dataclass(slots=True)
class Binding:
    """The component that has packets kept that are denied while the others start.

    They are judged by policies and get the names of Pods, which come from the API server first.
    """

    watch: DeniedWatch
    name: str = "denied log"

    async def start(self) -> None:
        """Bind; what comes is read later."""
        self.watch.bind()

    async def stop(self) -> None:
        """Release what was bound, and never read where the start was cut short."""
        self.watch.release()


async def _all(read: Callable[[], bool]) -> None:
    """Read until there is nothing more; others are served between.

    What comes meanwhile is not waited for for ever: of a log that never pauses there is always one
    more line, and who is stopping has an end.
    """
    for _ in range(READS):
        more = read()
        await asyncio.sleep(0)
        if not more:
            return
