"""Sends the written records to an external IPFIX collector."""

import logging
from collections.abc import Callable, Sequence
from typing import Any

from flowvis.aggregator.destinations.sending import CollectorDestination
from flowvis.delivery.messages import encode_next
from flowvis.delivery.queue import Queue
from flowvis.fields import AGGREGATED, Field
from flowvis.ipfix.exporter import ExporterSession, least_message
from flowvis.runtime.dropped import OutgoingDropped
from flowvis.runtime.ledger import Stage
from flowvis.runtime.logs import LimitedLog
from flowvis.transport.client import Client

log = logging.getLogger(__name__)

AT_ONCE = 8192  # records encoded in one go: some 4 MB and 4 ms; a call costs as much as 1000
AT_ONCE_BYTES = 8 << 20
"""Of messages: with the texts that an exporter may bring, a record has up to 64 KB."""


class IpfixDestination(CollectorDestination):
    """Records as IPFIX messages of one observation domain.

    `template_refresh_s` is for UDP, where templates go out again and again; None: only at first.
    """

    def __init__(
        self,
        client: Client,
        stage: Stage,
        *,
        domain: Callable[[], int],
        fields: Sequence[Field] = AGGREGATED,
        max_message: int = 65535,
        template_refresh_s: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__("IPFIX collector", client, stage, **options)
        self._domain = domain
        self._number = 0  # the domain's, for good: the collector knows us by it
        self._fields = tuple(fields)
        self._max_message = max_message
        self._template_refresh_s = template_refresh_s
        self._log = LimitedLog(log)

    async def start(self) -> None:
        """Begin to send; whether the collector is there shows later."""
        self._number = self._domain()
        await super().start()

    def _encoder(self) -> "_Session":
        """Return a session; where the path takes not even a template, the client says so."""
        size = min(self._max_message, self.client.max_message)
        session = ExporterSession(
            self._number,
            self._fields,
            max_message=max(size, least_message(self._fields)),
            template_refresh=self._template_refresh_s if self.client.datagrams else None,
        )
        return _Session(session, self._now, self._say_shortened)

    def _say_shortened(self, count: int, size: int) -> None:
        text = "%d records have shortened texts, as they fit into no message of %d bytes"
        self._log.log(logging.WARNING, self.name, text, count, size)


class _Session:
    """One session's messages."""

    def __init__(
        self,
        session: ExporterSession,
        now_s: Callable[[], int],
        on_shortened: Callable[[int, int], None],
    ) -> None:
        self._session, self._now_s, self._on_shortened = session, now_s, on_shortened
        self.records_in = session.records_from
        self.left = 0

    def opening(self) -> list[bytes]:
        """The templates."""
        return self._session.templates(self._now_s())

    def next_messages(self, queue: Queue) -> list[bytes]:
        """Take records as messages; those that no message can hold are dropped."""
        session = self._session
        before = session.stats.shortened
        messages = encode_next(
            queue,
            session,
            self._now_s(),
            oversize=OutgoingDropped.OVERSIZE,
            limit=AT_ONCE,
            max_bytes=AT_ONCE_BYTES,
        )
        self.left = queue.taken - session.records_from(messages)
        if count := session.stats.shortened - before:
            self._on_shortened(count, session.max_message)
        return messages
