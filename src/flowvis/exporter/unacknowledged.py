"""Records on disk until they are settled: what an exporter that is killed leaves to the next one.

They are appended before anybody can send them, and before the journal says that they were reported.
So a kill repeats records, which their totals make harmless, and loses none. The files are IPFIX
(`flowvis.ipfix.file`), small, and go as the queue's mark passes them; the number of the one that
has its records is a batch's mark. Each is locked by its exporter: what is not locked has lost its
own, and the next one takes it. They are of no boot: a record is true after one as well.
"""

import fcntl
import logging
import os
import re
import secrets
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from flowvis.batch import SETTLED, Batch
from flowvis.counts import count, gauge
from flowvis.delivery.queue import Queue, Unsettled
from flowvis.fields import EXPORTED
from flowvis.ipfix.file import FileWriter, read_file
from flowvis.native import StringTable
from flowvis.runtime.clock import now_ms
from flowvis.runtime.directory import append_whole

log = logging.getLogger(__name__)

SEGMENT_BYTES = 256 << 10  # a thousand records: what is settled in part is repeated whole
MOST_FILES = 256  # each is held open; an exporter that is killed again and again leaves small ones
LARGEST = 64 << 20  # of a file that is read: 8192 records of long texts are less
READ_TIMES = 4  # the bound: so much is read of what others left

_SUFFIX, _NEW = ".ipfix", ".new"
_NAME = re.compile(rf"(\d{{16}})-[0-9a-f]{{8}}{re.escape(_SUFFIX)}({re.escape(_NEW)})?")


@dataclass(slots=True)
class UnacknowledgedStats:
    """How the files fare."""

    files: int = gauge("Files with records that are not acknowledged")
    bytes: int = gauge("Bytes of these files")
    inherited: int = count("Records that an exporter before left and that are sent again")
    unprotected: int = count("Records that a kill would lose: not written, or the files were full")
    failures: int = count("Times that a file of records was not written or not read")
    damaged: int = count("Messages in files of an exporter before that were not as it wrote them")


@dataclass(slots=True, eq=False)
class Segment:
    """One file, that this exporter has locked."""

    number: int
    path: Path
    descriptor: int
    size: int
    records: int = 0

    def remove(self) -> None:
        """Delete the file; whoever opened it meanwhile sees that it is no more."""
        with suppress(OSError):
            self.path.unlink()
        os.close(self.descriptor)


class Unacknowledged:
    """Component: keeps the records of a queue on disk, and gives it those of who was before.

    At most `max_bytes`: beyond, the oldest file goes, whose records stay in the queue.
    """

    name = "unacknowledged"

    def __init__(
        self, directory: Path, node_name: str, queue: Queue, *, domain: int, max_bytes: int
    ) -> None:
        self.path = directory / f"{quote(node_name, safe='')}.records"
        self.stats = UnacknowledgedStats()
        self._queue = queue
        queue.keep_marks_apart()
        self._max_bytes = max_bytes
        self._segment_bytes = max(SEGMENT_BYTES, 2 * max_bytes // MOST_FILES)
        self._run = secrets.token_hex(4)  # two exporters may be there at a time
        self._number = 0  # of the newest segment; marks are from 1
        self._segments: list[Segment] = []  # the oldest first
        self._writer = FileWriter(domain, EXPORTED)
        self._writing = False  # into the newest; else the next record begins a file
        self._empty_size = 0  # of the newest, without records
        self._failing = False

    def has(self, mark: int) -> bool:
        """Whether there is a file with the records of this mark."""
        return bool(self._segments) and self._segments[0].number <= mark < SETTLED

    async def start(self) -> None:
        """Give the queue what an exporter before left, to be sent first."""
        try:
            left = self._left()
        except OSError as error:
            log.warning("%s: not read: %s", self.path, error)
            return
        room = READ_TIMES * self._max_bytes
        batches: list[Batch] = []
        for path in reversed(left):
            segment = self._adopt(path)
            if segment is None:
                continue
            room -= segment.size
            try:
                batch = self._read(segment) if room >= 0 else None
            except OSError as error:
                self.stats.failures += 1
                log.warning("%s: not read, and left to the next exporter: %s", path, error)
                os.close(segment.descriptor)
                continue
            if batch is None or not len(batch):
                if batch is None:
                    self.stats.failures += 1
                    log.warning("%s: more than is read: its records are lost", path)
                segment.remove()
                continue
            batch.mark, segment.records = segment.number, len(batch)
            batches.insert(0, batch)
            self._segments.insert(0, segment)
            self._bound()
        self._measure()
        inherited = sum(map(len, batches))
        if inherited:
            self.stats.inherited += inherited
            self._queue.stage.inherit(inherited)
            # Which of them were sent nobody knows.
            self._queue.take_over(Unsettled(batches, repeated=inherited, doubtful=inherited))
            log.info("%s: %d records were not acknowledged: they go first", self.path, inherited)

    async def stop(self) -> None:
        """Leave what is not settled to the next exporter."""
        self.settled()
        for segment in self._segments:
            if segment.records:
                os.close(segment.descriptor)
            else:
                segment.remove()
        self._segments, self._writing = [], False

    def keep(self, batch: Batch) -> None:
        """Write records that are about to be put into the queue; sets their mark."""
        if not len(batch):
            return
        try:
            self._append(batch)
        except OSError as error:
            self.stats.failures += 1
            self.stats.unprotected += len(batch)
            if not self._failing:
                text = "%s: not written, so a kill loses records that were not acknowledged: %s"
                log.warning(text, self.path, error)
            self._failing = True
            batch.mark = SETTLED  # no file waits for it
        else:
            self._failing = False
            batch.mark = self._number
        self._bound()
        self._measure()

    def settled(self) -> None:
        """Delete what the queue has settled. Not between `keep` and its putting."""
        mark = self._queue.mark
        while self._segments and self._segments[0].number < mark:
            if self._writing and len(self._segments) == 1 and self._clear(self._segments[0]):
                break
            self._segments.pop(0).remove()
        self._measure()

    def _clear(self, segment: Segment) -> bool:
        """Delete the records of the newest file, which goes on; else it is to go as others do.

        A disk that fails costs a file that nobody could delete, and no session.
        """
        if segment.records:
            try:
                os.ftruncate(segment.descriptor, self._empty_size)
            except OSError as error:
                self.stats.failures += 1
                log.warning("%s: not emptied: %s", segment.path, error)
                self._writing = False
                return False
            segment.size, segment.records = self._empty_size, 0
        return True

    def _append(self, batch: Batch) -> None:
        now = now_ms() // 1000
        if not self._writing or self._segments[-1].size >= self._segment_bytes:
            self._begin(now)
        segment = self._segments[-1]
        _write(segment, self._writer.records(batch, now))
        segment.records += len(batch)

    def _begin(self, now: int) -> None:
        """Begin a file; nobody finds it before it is locked."""
        self._writing = False
        self.path.mkdir(parents=True, exist_ok=True)
        self._number += 1
        path = self.path / f"{self._number:016d}-{self._run}{_SUFFIX}"
        fresh = path.with_name(path.name + _NEW)
        descriptor = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        segment = Segment(self._number, path, descriptor, 0)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _write(segment, self._writer.begin(now))
            fresh.replace(path)
        except OSError:
            segment.path = fresh
            segment.remove()
            raise
        self._segments.append(segment)
        self._writing, self._empty_size = True, segment.size

    def _bound(self) -> None:
        """Delete the oldest files that are too much; the newest stays."""
        size = sum(segment.size for segment in self._segments)
        while (size > self._max_bytes or len(self._segments) > MOST_FILES) and len(
            self._segments
        ) > 1:
            oldest = self._segments.pop(0)
            size -= oldest.size
            self.stats.unprotected += oldest.records
            oldest.remove()

    def _measure(self) -> None:
        self.stats.files = len(self._segments)
        self.stats.bytes = sum(segment.size for segment in self._segments)

    def _left(self) -> list[Path]:
        """The files that are there, the oldest first."""
        try:
            found = [path for path in self.path.iterdir() if _NAME.fullmatch(path.name)]
        except FileNotFoundError:
            return []
        return sorted(found)

    def _adopt(self, path: Path) -> Segment | None:
        """Lock a file that has lost its exporter; None where it has one."""
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            return None
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            status = os.fstat(descriptor)
            # Its exporter may have deleted it since.
            if stat.S_ISREG(status.st_mode) and os.path.samestat(status, path.stat()):
                number = int(path.name.partition("-")[0])
                self._number = max(self._number, number)
                return Segment(number, path, descriptor, status.st_size)
        os.close(descriptor)
        return None

    def _read(self, segment: Segment) -> Batch | None:
        """Return a file's records; None where they are too many."""
        if segment.size > LARGEST:
            return None
        data = os.pread(segment.descriptor, segment.size, 0)
        content = read_file(data, EXPORTED, StringTable())
        if content.damaged:
            self.stats.damaged += content.damaged
            text = "%s: %d messages are damaged: their records are lost"
            log.warning(text, segment.path, content.damaged)
        return content.batch


def _write(segment: Segment, data: bytes) -> None:
    append_whole(segment.descriptor, segment.size, data)
    segment.size += len(data)
