"""From a queue into an IPFIX session: what is taken is encoded, and what did not leave is known."""

from collections.abc import Sequence

import numpy as np

from flowvis.backlog import UNBOUNDED
from flowvis.delivery.queue import Queue
from flowvis.ipfix.exporter import ExporterSession, in_sending_order
from flowvis.runtime.dropped import Reason


def encode_next(
    queue: Queue,
    session: ExporterSession,
    now: int,
    *,
    oversize: Reason,
    limit: int = UNBOUNDED,
    max_bytes: int = UNBOUNDED,
) -> list[bytes]:
    """Have the oldest records of the queue, at most `limit`, as messages of the session.

    Those that are taken come before those that wait. They stay taken, in the order of the messages;
    what no message can hold is dropped. The last message is the one with which they have
    `max_bytes`: what is taken beyond the session's `encoded` is for the next time. `now` is in
    seconds since the epoch.
    """
    batch = queue.unsent or queue.take(limit)
    if batch is None:
        return []
    batch = in_sending_order(batch)
    messages = session.encode(batch, now, max_bytes=max_bytes)
    if session.oversized:
        batch = batch.take(np.delete(np.arange(len(batch)), session.oversized))
    queue.rewrite(batch, oversize)
    return messages


def all_but(queue: Queue, session: ExporterSession, unsent: Sequence[bytes]) -> None:
    """Note that what is taken has been sent, but for what is in these last messages."""
    queue.sent(queue.leaving - session.records_from(unsent))
