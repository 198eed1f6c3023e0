"""The flow log: records as lines of a file, or of standard output."""

import asyncio
import logging
from bisect import bisect_right
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowvis.aggregator.destinations.file_lines import Lines, csv_log, json_log
from flowvis.aggregator.destinations.kind import Kind, Place, Problems
from flowvis.aggregator.destinations.loads import (
    Load,
    LoadDestination,
    LoadStats,
    Undelivered,
)
from flowvis.aggregator.destinations.rotation import DAY_S, TIDY_S, RotatedFile, Rotation
from flowvis.aggregator.destinations.texts import split_by_text
from flowvis.batch import Batch
from flowvis.delivery.destination import Destination
from flowvis.delivery.queue import Unsettled
from flowvis.fields import RuleAction
from flowvis.runtime.component import end, spawn
from flowvis.runtime.dropped import OutgoingDropped
from flowvis.runtime.ledger import Stage
from flowvis.runtime.settings import option

AT_ONCE = 1000  # records of one load: some 300 KB as CSV, made and written in some 10 ms
AT_ONCE_BYTES = 4 << 20  # of texts in lines that are made in one go
INTERVAL_S = 1.0  # Antrea writes every 5 s
WRITING_S = 1.0  # at most, for lines that are being written when it ends
CLOSING_S = 3.0  # at most, for the file to be closed then

log = logging.getLogger(__name__)

ACTIONS: dict[str, tuple[int, ...]] = {
    "None": (RuleAction.NONE,),
    "Allow": (RuleAction.ALLOW,),
    "Drop": (RuleAction.DROP,),
    "Reject": (RuleAction.REJECT,),
    "Unenforced": (RuleAction.UNENFORCED_DROP, RuleAction.UNENFORCED_REJECT),
}
"""What filters name."""


class LogFormat(Enum):
    """What the lines are."""

    CSV = "CSV"
    JSON = "JSON"


@dataclass(frozen=True)
class LogFilter:
    """Which records a flow log takes: those whose actions are in both lists."""

    ingress_network_policy_rule_actions: tuple[str, ...] = option(
        (),
        doc="Actions of the rule that decided at the destination; Unenforced: it would have denied "
        "what went on. Empty: any",
        choices=tuple(ACTIONS),
    )
    egress_network_policy_rule_actions: tuple[str, ...] = option(
        (), doc="The same of the rule that decided at the source", choices=tuple(ACTIONS)
    )

    def mask(self, batch: Batch) -> NDArray[np.bool_]:
        """Say which records it takes."""
        taken = np.ones(len(batch), bool)
        for way, actions in (
            ("ingress", self.ingress_network_policy_rule_actions),
            ("egress", self.egress_network_policy_rule_actions),
        ):
            if actions:
                numbers = [number for action in actions for number in ACTIONS[action]]
                taken &= np.isin(batch[f"{way}NetworkPolicyRuleAction"], numbers)
        return taken


@dataclass(frozen=True)
class FlowLogger:
    """A log of flows in a file."""

    enable: bool = option(False, doc="Whether records are written to a file, a line each")
    path: Path = option(
        Path("/tmp/antrea-flows.log"),  # noqa: S108  Antrea's default
        doc="The file; `/dev/stdout` for standard output. In the shipped Pods only volumes can be "
        "written to",
    )
    max_size: int = option(
        100, doc="MB (10^6 bytes) after which the file is put aside; 0: never", minimum=0
    )
    max_backups: int = option(
        3, doc="How many files that were put aside are kept; 0: all", minimum=0
    )
    max_age: int = option(0, doc="For how many days they are kept; 0: for ever", minimum=0)
    compress: bool = option(True, doc="Whether they are compressed (gzip)")
    record_format: LogFormat = option(
        LogFormat.CSV,
        doc="CSV: Antrea's 30 columns, without heading; JSON: an object a line with all fields, as "
        "`flowctl flows -o json` has them",
    )
    pretty_print: bool = option(
        True, doc="Names instead of numbers of protocols, actions and kinds of policies"
    )
    filters: tuple[LogFilter, ...] = option(
        (), doc="Which records are written: those that one of these takes; without any, all"
    )
    max_pending_records: int = option(
        65_536,
        doc="Records that wait while the file cannot be written to; then the oldest are dropped",
        minimum=1,
    )
    required: bool = option(
        False, doc="Whether exporters keep their records until they are in the file"
    )

    def check(self) -> Problems:
        """Yield what cannot be a file."""
        if self.enable and not self.path.is_absolute():
            yield "path", f"{str(self.path)!r} is not absolute: begin it with /"


class Tidying:
    """A thread for what takes seconds, beside the one that writes."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="flow-log tidying")
        self._last: Future[None] | None = None

    def __call__(self, work: Callable[[], None]) -> None:
        """Have work done that is always the same: what has not begun does for this as well."""
        if self._last is None or self._last.running() or self._last.done():
            self._last = self._thread.submit(work)

    def end(self) -> None:
        """Wait for what is under way; begin nothing more."""
        self._thread.shutdown(cancel_futures=True)


class FlowLog(LoadDestination):
    """Appends lines to a file; what of these are the kernel's counts as delivered."""

    def __init__(
        self,
        file: RotatedFile,
        tidying: Tidying,
        lines: Lines,
        stage: Stage,
        *,
        filters: tuple[LogFilter, ...] = (),
        before: "FlowLog | None" = None,
        **options: Any,
    ) -> None:
        """`tidying` is what the file is tidied in; `before` the log whose place this one takes."""
        super().__init__(
            f"flow log {file.path}", stage, load_records=AT_ONCE, interval_s=INTERVAL_S, **options
        )
        self.file = file
        """What it writes to, which is its thread's as long as that writes."""
        self._tidying = tidying
        self._lines = lines
        self._filters = filters
        self._before = before
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="flow-log")
        self._writing: asyncio.Future[int] | None = None
        self._aging: asyncio.Task[None] | None = None
        self._begun: Load | None = None
        self._parts = self._size = 0  # of that one, that are written

    def put(self, batch: Batch) -> None:
        """Take those records of a batch that a filter takes."""
        if self._filters and not self.queue.closed:
            taken = np.logical_or.reduce([one.mask(batch) for one in self._filters])
            left_out = len(batch) - int(np.count_nonzero(taken))
            self.queue.stage.received += left_out
            self.queue.stage.drop(OutgoingDropped.FILTERED, left_out)
            if left_out:
                batch = batch.take(taken)
        super().put(batch)

    async def start(self) -> None:
        """Begin to write, behind what the log before this one has written."""
        if self._before is not None:
            self.file.follow(self._before.file)
            self._before = None
        await super().start()
        self._aging = spawn(f"{self.name}: age", self._keep_tidy())

    def remainder(self) -> Unsettled:
        """Take out what was kept when it was retired, but for lines that are there already."""
        self._settle_written()
        return super().remainder()

    def abandon(self) -> None:
        """Give up what waits, counted, but for lines that are there already."""
        self._settle_written()
        super().abandon()

    async def deliver(self, load: Load) -> int:
        """Write the lines of a load."""
        self._writing = asyncio.ensure_future(self._call(self._write, load))
        try:
            return await asyncio.shield(self._writing)
        except OSError as error:
            raise Undelivered(f"cannot be written: {error.strerror or error}") from error

    async def completed(self, load: Load) -> bool:  # noqa: ARG002  it is the one that is written
        """Wait for what the thread is writing, which nothing stops."""
        if self._writing is None:
            return False
        await asyncio.wait((self._writing,), timeout=WRITING_S)
        return self._writing.done() and self._writing.exception() is None

    async def close(self) -> None:
        """Close the file; a disk that hangs keeps nobody, as who takes its place."""
        if self._aging is not None:
            await end(self._aging)
        ending = asyncio.ensure_future(self._call(self._end))
        await asyncio.wait((ending,), timeout=CLOSING_S)
        self._thread.shutdown(wait=False)
        if not ending.done():
            log.warning("%s: does not come to an end, and is left alone", self.name)
        elif error := ending.exception():
            log.warning("%s: %s", self.name, error)

    async def _keep_tidy(self) -> None:
        """Have what becomes too old deleted, though no record comes."""
        while True:
            await asyncio.sleep(TIDY_S)
            await self._call(self._tidying, self.file.try_to_tidy)

    def _end(self) -> None:
        self.file.end()
        self._tidying.end()  # whoever takes its place tidies the same files
        self.file.close()

    async def _call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *arguments)

    def _settle_written(self) -> None:
        """Note what of a load that is not written whole is there, unless it is being written."""
        load = self._load
        if load is not None and load is self._begun and (not self._writing or self._writing.done()):
            self.queue.sent(self._written(load))
            self._begun = None

    def _written(self, load: Load) -> int:
        """How many of a load's first records are there, a pipe's included that has whole lines."""
        parts, begun = _parts(load), len(self.file.begun)
        written = sum(map(len, parts[: self._parts]))
        for part in parts[self._parts :]:
            whole = bisect_right(
                range(1, len(part) + 1), begun, key=lambda n: len(self._lines(part.take(slice(n))))
            )
            written += whole
            if whole < len(part):
                break
            begun -= len(self._lines(part))
        return written

    def _write(self, load: Load) -> int:
        """Write the lines of a load, of long texts a part at a time; what is there stays there."""
        if self._begun is not load:
            self._begun, self._parts, self._size = load, 0, 0
        parts = _parts(load)
        whole = len(parts) == len(load.batches)
        for few in [parts] if whole else [[part] for part in parts[self._parts :]]:
            lines = b"".join(map(self._lines, few))
            self.file.append(lines)
            self._parts += len(few)
            self._size += len(lines)
        self._begun = None
        return self._size


def _parts(load: Load) -> list[Batch]:
    return [part for batch in load.batches for part in split_by_text(batch, AT_ONCE_BYTES)]


def make(chosen: FlowLogger, place: Place, before: Destination | None) -> FlowLog:
    """Return what writes the log."""
    rotation = Rotation(
        chosen.max_size * 1_000_000, chosen.max_backups, chosen.max_age * DAY_S, chosen.compress
    )
    form = csv_log if chosen.record_format is LogFormat.CSV else json_log
    tidying = Tidying()
    return FlowLog(
        RotatedFile(chosen.path, rotation, beside=tidying),
        tidying,
        partial(form, pretty=chosen.pretty_print),
        place.stage,
        filters=chosen.filters,
        before=before if isinstance(before, FlowLog) else None,
        capacity=chosen.max_pending_records,
        max_bytes=place.max_bytes,
        grace_s=place.surroundings.grace_s,
        required=chosen.required,
        stats=before.stats if before is not None and isinstance(before.stats, LoadStats) else None,
    )


KIND = Kind("flow_logger", "flow-log", make, weight=0.25)
