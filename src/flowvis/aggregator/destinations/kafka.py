"""Kafka: records as messages of a topic, keyed by connection, acknowledged by the brokers."""

import asyncio
import logging
import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from flowvis.addresses import may_be_resolved
from flowvis.aggregator.destinations.json_lines import json_lines
from flowvis.aggregator.destinations.kafka_client import Access, Message, TooLarge, Topic
from flowvis.aggregator.destinations.kind import Kind, Place, Problems
from flowvis.aggregator.destinations.loads import Load, LoadDestination, LoadStats
from flowvis.aggregator.destinations.protobuf import Messages
from flowvis.aggregator.destinations.texts import column_texts
from flowvis.batch import Batch
from flowvis.delivery.destination import Destination
from flowvis.fields import AGGREGATED, BY_NAME
from flowvis.ipfix.exporter import in_sending_order
from flowvis.runtime.dropped import OutgoingDropped
from flowvis.runtime.ledger import Stage
from flowvis.runtime.settings import Duration, option, section
from flowvis.transport.address import parse_host
from flowvis.transport.tls import VERSIONS, TlsFiles

log = logging.getLogger(__name__)

AT_ONCE = 1000  # records of one load: 2 MB as JSON, in a thread
AT_ONCE_BYTES = 16 << 20
"""Of messages made in one go: of the texts that an exporter may bring one has up to 2 MB."""
PORT = 9092
OVERHEAD = 128  # bytes around a single message, at most: those of its batch and its own

_TUPLE = tuple(
    BY_NAME[name]
    for name in (
        "sourceIP", "sourceTransportPort", "destinationIP", "destinationTransportPort",
        "protocolIdentifier",
    )
)  # fmt: skip
_BROKER = re.compile(r"(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,253})(?::([0-9]{1,5}))?")


class MessageFormat(Enum):
    """What the messages are."""

    JSON = "JSON"
    PROTOBUF = "Protobuf"


def _broker(text: str) -> str:
    """Read where a broker is."""
    found = _BROKER.fullmatch(text)
    port = int(found[2] or PORT) if found else 0
    if found is None or not 0 < port < 1 << 16 or not may_be_resolved(found[1]):
        raise ValueError("is no broker: write <host>[:<port>], an IPv6 address in brackets")
    return f"{found[1]}:{port}"


def _topic(text: str) -> str:
    """Check the name of a topic, by Kafka's rules."""
    if text in {".", ".."} or not re.fullmatch(r"[A-Za-z0-9._-]{1,249}", text):
        raise ValueError("is no topic: up to 249 letters, digits, dots, underscores and hyphens")
    return text


@dataclass(frozen=True)
class KafkaTls:
    """TLS towards the brokers; files are read anew with each connection after a failure."""

    enable: bool = option(False, doc="Whether brokers are spoken to over TLS")
    ca_file: Path | None = option(
        None, doc="The CA of their certificates (PEM); by default the system's CAs"
    )
    certificate_file: Path | None = option(
        None, doc="The certificate to show (PEM); by default none"
    )
    key_file: Path | None = option(None, doc="Its private key (PEM)")
    server_name: str = option(
        "",
        parse=parse_host,
        takes="a name or address",
        doc="The name in the certificates of all brokers; empty: the host by which each is known",
    )
    min_version: str = option(
        "VersionTLS12", doc="The oldest TLS to speak", choices=tuple(VERSIONS)
    )

    def check(self) -> Problems:
        """Yield what does not go together."""
        if (self.certificate_file is None) != (self.key_file is None):
            yield "certificateFile", "goes with keyFile: give both, or none"

    @property
    def files(self) -> TlsFiles | None:
        """The files, where TLS is spoken."""
        if not self.enable:
            return None
        return TlsFiles(self.ca_file, self.certificate_file, self.key_file, self.min_version)


@dataclass(frozen=True)
class KafkaSasl:
    """Who we are to the brokers, by a name and a password."""

    mechanism: str = option(
        "",
        doc="How that is shown; empty: not at all",
        choices=("", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"),
    )
    username: str = option("", doc="The name", env="KAFKA_USERNAME")
    password: str = option("", doc="The password", env="KAFKA_PASSWORD", secret=True)

    def check(self) -> Problems:
        """Yield what is missing."""
        if self.mechanism and not (self.username and self.password):
            yield "username", f"is needed for {self.mechanism}, and password: give both"


@dataclass(frozen=True)
class Kafka:
    """Messages in a topic of Kafka."""

    enable: bool = option(False, doc="Whether records go to Kafka (needs the extra `kafka`)")
    brokers: tuple[str, ...] = option(
        (),
        parse=_broker,
        takes="a host[:port]",
        doc=f"Some of the brokers, which tell of the others; port {PORT} by default; needed",
    )
    topic: str = option("flows", parse=_topic, takes="a name", doc="The topic; it has to be there")
    record_format: MessageFormat = option(
        MessageFormat.JSON,
        doc="JSON: an object of the elements' names, as external collectors get it; Protobuf: the "
        "message of docs/flow-record.proto, with all stored fields, a fifth as large",
    )
    compression: str = option(
        "zstd",
        doc="How batches are compressed",
        choices=("none", "gzip", "snappy", "lz4", "zstd"),
    )
    acks: str = option(
        "all",
        doc="Whose acknowledgement counts: all (in-sync replicas; what is repeated is recognised), "
        "or the leader's alone, with which records may be lost or repeated when it fails",
        choices=("all", "leader"),
    )
    client_id: str = option(
        "flow-aggregator", doc="What brokers call us in their logs, quotas and metrics"
    )
    max_batch_size: int = option(
        262_144,
        doc="Bytes of a batch before it is compressed; where the topic takes less, less",
        minimum=1024,
        maximum=16 << 20,
    )
    max_message_size: int = option(
        1_000_000,
        doc="Bytes of a message, at most: larger ones are dropped as `oversize`, as are those that "
        "the topic (`max.message.bytes`) does not take",
        minimum=1024,
        maximum=64 << 20,
    )
    flush_interval: Duration = option(
        1.0, doc="For how long records wait for others, to be sent together", minimum=0.01
    )
    tls: KafkaTls = section(KafkaTls, doc="TLS towards the brokers")
    sasl: KafkaSasl = section(KafkaSasl, doc="A name and a password")
    max_pending_records: int = option(
        262_144,
        doc="Records that wait while brokers are away or slow, as far as memory has room; then the "
        "oldest are dropped",
        minimum=1,
    )
    required: bool = option(
        False, doc="Whether exporters keep their records until brokers have acknowledged them"
    )

    def check(self) -> Problems:
        """Yield what is missing."""
        if self.enable and not self.brokers:
            yield "brokers", "is needed when kafka.enable is true"


class _Work:
    """The messages of a load, as many at a time as memory is meant for, and which are appended."""

    def __init__(self, load: Load, messages: Iterator[Message], largest: int) -> None:
        self.load = load
        self.messages: list[Message] = []
        self.bytes = 0
        self.largest_refused: Message | None = None
        self.refused = 0
        self.broken = False
        """Whether the messages could not be made."""
        self._coming = messages
        self._largest = largest
        self._done = bytearray()
        self._lanes: dict[int, list[int]] | None = None
        self._generation = -1

    def fill(self) -> bool:
        """Make the next messages, where those before are done with; False where there are none."""
        if self.messages:
            return True
        size = 0
        try:
            for message in self._coming:
                self.messages.append(message)
                size += len(message.key) + len(message.value)
                if size > AT_ONCE_BYTES:
                    break
        except BaseException:
            self.broken = True
            raise
        self._done, self._lanes = bytearray(len(self.messages)), None
        for row, (key, value) in enumerate(self.messages):
            if len(key) + len(value) + OVERHEAD > self._largest:
                self.refuse(row)
        return bool(self.messages)

    def lanes(self, topic: Topic) -> dict[int, list[int]]:
        """Return the rows that are to be appended, in order, by partition.

        It stays the same partition in all attempts of a generation: what is there may have come of
        it.
        """
        if self._lanes is None or self._generation != topic.generation:
            self._generation = topic.generation
            self._lanes = defaultdict(list)
            for row, partition in enumerate(topic.partitions_of(self.messages)):
                self._lanes[partition].append(row)
        return {
            partition: left
            for partition, rows in self._lanes.items()
            if (left := [row for row in rows if not self._done[row]])
        }

    def appended(self, rows: Sequence[int], size: int) -> None:
        """Note that a batch of these is there, of so many bytes."""
        self.bytes += size
        for row in rows:
            self._done[row] = True

    def refuse(self, row: int) -> None:
        """Note that a message is too large."""
        self._done[row] = True
        self.refused += 1
        message = self.messages[row]
        if self.largest_refused is None or len(message.value) > len(self.largest_refused.value):
            self.largest_refused = message


class KafkaDestination(LoadDestination):
    """Appends loads to a topic; what was acknowledged is not sent again with the rest of a load."""

    def __init__(
        self,
        topic: Topic,
        values: Callable[[Batch], Iterable[bytes]],
        stage: Stage,
        *,
        max_message: int,
        **options: Any,
    ) -> None:
        """`values` makes the messages of a batch, which are in the order of sending."""
        super().__init__(f"Kafka topic {topic.name}", stage, load_records=AT_ONCE, **options)
        self._topic = topic
        self._values = values
        self._max_message = max_message
        self._work: _Work | None = None

    async def deliver(self, load: Load) -> int:
        """Append what of a load is not there yet, to all of its partitions at once."""
        work = self._work
        if work is None or work.load is not load or work.broken:
            work = self._work = _Work(load, self._messages(load), self._max_message)
        try:
            await self._topic.open()
            while await self._topic.call(work.fill):
                lanes = await self._topic.call(work.lanes, self._topic)
                ends = await asyncio.gather(
                    *(self._append(work, *lane) for lane in lanes.items()), return_exceptions=True
                )
                _raise_first(ends)
                work.messages = []
        except BaseException:
            await self._topic.disconnect()
            raise
        self._work = None
        self._give_up_refused(work)
        return work.bytes

    async def close(self) -> None:
        """End the connections."""
        await self._topic.close()

    def _messages(self, load: Load) -> Iterator[Message]:
        for batch in map(in_sending_order, load.batches):
            yield from map(Message, connection_keys(batch), self._values(batch))

    async def _append(self, work: _Work, partition: int, rows: Sequence[int]) -> None:
        at = 0
        while at < len(rows):
            try:
                made = await self._topic.append(partition, [work.messages[r] for r in rows[at:]])
            except TooLarge:
                work.refuse(rows[at])
                at += 1
                continue
            work.appended(rows[at : at + made.messages], len(made.data))
            at += made.messages

    def _give_up_refused(self, work: _Work) -> None:
        """Drop what is too large, by name, out of a load whose rest is delivered."""
        largest = work.largest_refused
        if largest is None:
            return
        log.error(
            "%s: dropped %d records that are larger than a message may be, the largest with %d "
            "bytes, of the connection %s",
            self.name, work.refused, len(largest.value), largest.key.decode(),
        )  # fmt: skip
        self.queue.drop(OutgoingDropped.OVERSIZE, work.refused)
        _shorten(work.load, work.refused)


def _raise_first(ends: Sequence[BaseException | None]) -> None:
    """Raise the first error of what was done at once, if there is one."""
    for end in ends:
        if end is not None:
            raise end


def _shorten(load: Load, number: int) -> None:
    """Have a load count fewer records: which ones does not matter any more."""
    while number:
        batch = load.batches.pop()
        if len(batch) > number:
            load.batches.append(batch.take(slice(number, None)))
        number -= min(number, len(batch))


def connection_keys(batch: Batch) -> list[bytes]:
    """Return the key of each record: source and port, destination and port, protocol."""
    columns = [column_texts(batch, each, str) for each in _TUPLE]
    return [",".join(values).encode() for values in zip(*columns, strict=True)]


def _json(batch: Batch, now_s: Callable[[], float]) -> Iterator[bytes]:
    return (line.rstrip() for line in json_lines(batch, AGGREGATED, int(now_s())))


def make(chosen: Kafka, place: Place, before: Destination | None) -> KafkaDestination:
    """Return what appends to the topic; SettingsError where a package is missing."""
    sasl = chosen.sasl
    access = Access(
        chosen.brokers,
        chosen.client_id,
        chosen.tls.files,
        chosen.tls.server_name,
        sasl.mechanism,
        sasl.username,
        sasl.password,
    )
    topic = Topic(
        chosen.topic,
        access,
        codec=chosen.compression,
        all_replicas=chosen.acks == "all",
        batch_bytes=chosen.max_batch_size,
    )
    is_json = chosen.record_format is MessageFormat.JSON
    return KafkaDestination(
        topic,
        (lambda batch: _json(batch, time.time)) if is_json else Messages().each,
        place.stage,
        max_message=chosen.max_message_size,
        capacity=chosen.max_pending_records,
        max_bytes=place.max_bytes,
        grace_s=place.surroundings.grace_s,
        required=chosen.required,
        interval_s=chosen.flush_interval,
        stats=before.stats if before is not None and isinstance(before.stats, LoadStats) else None,
    )


KIND = Kind("kafka", "kafka", make)
