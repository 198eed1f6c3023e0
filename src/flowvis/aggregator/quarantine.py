"""Records whose handling fails, by a defect of ours: set apart, so that they cost nobody else's.

A batch that fails is tried again in halves (`parts.py`), so that only what fails is left. Of that
the log says, once a minute, what is needed to reproduce it; where there is a directory for it, the
records themselves are written there.
"""

import json
import logging
import os
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from flowvis.batch import Batch, address_text
from flowvis.fields import BY_NAME, Kind
from flowvis.ipfix.buffer import DOMAIN
from flowvis.runtime.logs import LimitedLog

log = logging.getLogger(__name__)

MAX_FILES = 16
MINUTE_S = 60.0  # in which so many are written: each takes milliseconds of everybody's time
MAX_RECORDS = 1000  # of one file: at most some 10 MB
PREFIX = "quarantine-"
SHOWN = 5  # exporters that the log names


class Quarantine:
    """Notes errors over records; `who` names an exporter by its number."""

    def __init__(
        self,
        directory: Path | None = None,
        who: Callable[[int], str] = str,
        *,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self.who = who
        self._directory = directory
        self._clock_s = clock_s
        self._log = LimitedLog(log, burst=1)
        self._written = 0
        self._moments: deque[float] = deque(maxlen=MAX_FILES)  # of the last ones written

    def note(self, doing: str, error: Exception, batch: Batch) -> None:
        """Take note of an error over some records, which are given up or go on without it."""
        fields = {"exporters": self._exporters(batch), "columns": len(batch.columns)}
        if self._directory is not None:
            fields["file"] = self._write(self._directory, doing, error, batch)
        self._log.log(
            logging.ERROR,
            f"{doing} {type(error).__name__}",
            "a defect of ours in %s: %s: %s; %d records are set apart",
            doing,
            type(error).__name__,
            error,
            len(batch),
            error=error,
            **fields,
        )

    def _exporters(self, batch: Batch) -> str:
        if DOMAIN not in batch:
            return ""
        numbers = list(dict.fromkeys(batch[DOMAIN].tolist()))
        more = f" and {len(numbers) - SHOWN} more" if len(numbers) > SHOWN else ""
        return ", ".join(self.who(number) for number in numbers[:SHOWN]) + more

    def _write(self, directory: Path, doing: str, error: Exception, batch: Batch) -> str:
        """Write the first records of a batch; return the file's name, or why there is none.

        There are MAX_FILES at most: each is written over when its turn has come again, and a minute
        has passed.
        """
        now_s = self._clock_s()
        if len(self._moments) == MAX_FILES and now_s - self._moments[0] < MINUTE_S:
            return f"none: {MAX_FILES} were written within a minute"
        self._moments.append(now_s)
        path = directory / f"{PREFIX}{self._written % MAX_FILES:02}.jsonl"
        self._written += 1
        try:
            with suppress(FileExistsError):
                directory.mkdir(mode=0o700, parents=True)
            descriptor = os.open(
                path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, mode=0o600
            )
            with os.fdopen(descriptor, "w") as file:
                head = {"doing": doing, "error": f"{type(error).__name__}: {error}"}
                file.write(json.dumps(head) + "\n")
                for record in as_rows(batch.take(slice(MAX_RECORDS))):
                    file.write(json.dumps(record) + "\n")
        except OSError as problem:
            return f"none: {problem}"
        return str(path)


def as_rows(batch: Batch) -> list[dict[str, object]]:
    """Return records as the objects that JSON has, without what is 0 or empty."""
    columns: dict[str, list[object]] = {}
    for name, column in batch.columns.items():
        kind = BY_NAME[name].kind if name in BY_NAME else None
        if kind is Kind.TEXT:
            columns[name] = list(batch.texts(name))
        elif column.ndim > 1:
            columns[name] = [address_text(row.tobytes()) for row in column]
        else:
            columns[name] = column.tolist()
    return [
        {name: values[row] for name, values in columns.items() if values[row]}
        for row in range(len(batch))
    ]
