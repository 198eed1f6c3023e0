"""What of Kafka we need: to append messages to a topic, each once as far as the broker can tell.

The package aiokafka speaks the protocol. Of its producer we use what is below it (the client,
requests and batches) and do the producer's part here: its own sends for ever what a broker does not
take, tells nobody why, and cannot be stopped meanwhile. It is little: a batch has the producer's
number and the place of its first message in what the producer sent to the partition, and is sent
again byte by byte until its fate is known; so the broker knows what it has (KIP-98).
"""

import asyncio
import logging
import ssl
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

from flowvis.aggregator.destinations.loads import Undelivered
from flowvis.errors import SettingsError
from flowvis.runtime.extras import extra
from flowvis.transport.tls import TlsFiles

T = TypeVar("T")

log = logging.getLogger(__name__)

REQUEST_MS = 30_000
CLOSE_S = 1.0
NOBODY = (-1, -1)
"""Number and epoch of who appends without telling what is repeated."""

NO_ERROR, DUPLICATE = 0, 46
SEQUENCES = 1 << 31
"""A producer's messages of a partition are numbered so far, and then from 0 on again."""
TOO_LARGE = frozenset({10, 18})
"""MESSAGE_TOO_LARGE, RECORD_LIST_TOO_LARGE: not appended."""
ESTRANGED = frozenset({3, 45, 47, 59})
"""UNKNOWN_TOPIC_OR_PARTITION, OUT_OF_ORDER_SEQUENCE_NUMBER, INVALID_PRODUCER_EPOCH,
UNKNOWN_PRODUCER_ID: the broker knows nothing of what this producer sent before."""


class Message(NamedTuple):
    """A message: what it is sorted by, and what is said."""

    key: bytes
    value: bytes


class TooLarge(Exception):
    """The topic does not take the first message, not even alone."""


@dataclass(frozen=True)
class Access:
    """Where the brokers are, and how to speak to them."""

    brokers: tuple[str, ...]
    """Some of them, as `host:port`: they tell of the others."""
    client_id: str = ""
    tls: TlsFiles | None = None
    server_name: str = ""
    """The name in the brokers' certificates, where it is not that of each."""
    mechanism: str = ""
    """Of SASL; empty: none."""
    username: str = ""
    password: str = field(default="", repr=False)

    def options(self) -> dict[str, Any]:
        """Return what the client takes; SettingsError where files are missing or wrong."""
        options: dict[str, Any] = {}
        protocol = "PLAINTEXT"
        if self.tls is not None:
            protocol = "SSL"
            context = self.tls.fill(_Context(ssl.PROTOCOL_TLS_CLIENT))
            context.name = self.server_name
            options["ssl_context"] = context
        if self.mechanism:
            protocol = f"SASL_{protocol}"
            options["sasl_mechanism"] = self.mechanism
            options["sasl_plain_username"] = self.username
            options["sasl_plain_password"] = self.password
        return options | {
            "bootstrap_servers": list(self.brokers),
            "client_id": self.client_id,
            "security_protocol": protocol,
            "request_timeout_ms": REQUEST_MS,
        }


@dataclass(frozen=True, slots=True)
class _Made:
    """A batch as it is sent, again where its fate is not known."""

    first: Message
    data: bytes
    messages: int
    limit: int
    """Bytes that it could have, before it was compressed."""


class Topic:
    """A topic that messages are appended to. Methods raise Undelivered with what went wrong.

    After that the next `append` to the partition is of the same messages, which may be there: so
    they have no other partition before `generation` is another one.
    """

    def __init__(
        self,
        name: str,
        access: Access,
        *,
        codec: str,
        all_replicas: bool,
        batch_bytes: int,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`codec` is how batches are compressed: none, gzip, snappy, lz4 or zstd.

        A batch has `batch_bytes` before that, unless a message alone has more. Without
        `all_replicas` the leader's word is enough, and a message may be there twice.
        """
        with extra("kafka", "kafka.enable"):
            import aiokafka
            from aiokafka import errors, partitioner
            from aiokafka.protocol.produce import ProduceRequest
            from aiokafka.protocol.transaction import InitProducerIdRequest
            from aiokafka.record.default_records import DefaultRecordBatchBuilder
        with extra("kafka", "kafka.compression"):
            if codec in {"snappy", "lz4", "zstd"}:
                import cramjam  # noqa: F401  what aiokafka compresses with
        self.name = name
        self.generation = 0
        """How often it was forgotten what was sent before."""
        self._aiokafka, self._errors = aiokafka, errors
        self._hash = partitioner.murmur2
        self._produce_request, self._producer_request = ProduceRequest, InitProducerIdRequest
        self._builder = DefaultRecordBatchBuilder
        codecs = ("none", "gzip", "snappy", "lz4", "zstd")  # in the protocol's order
        self._codec = codecs.index(codec)
        self._access = access
        self._all_replicas = all_replicas
        self._batch_bytes = batch_bytes
        self._clock = clock
        self._said = _Said()
        self._client: Any = None
        self._producer: tuple[int, int] | None = None
        self._sequences: dict[int, int] = {}
        self._under_way: dict[int, _Made] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="kafka")

    async def open(self) -> None:
        """Connect, unless that was done: learn of brokers and partitions, and who we are."""
        if self._client is not None:
            return
        self._said.begin()
        try:
            self._client = self._aiokafka.AIOKafkaClient(**self._access.options())
        except SettingsError as error:
            raise Undelivered("; ".join(error.problems)) from error
        await self._asking(self._begin())

    async def disconnect(self) -> None:
        """End the connections; the next ones look at brokers, names and certificates anew."""
        client, self._client = self._client, None
        if client is not None:
            with suppress(Exception):
                async with asyncio.timeout(CLOSE_S):
                    await client.close()

    async def close(self) -> None:
        """Let go of everything."""
        await self.disconnect()
        self._said.close()
        self._thread.shutdown(wait=False)

    async def call(self, function: Callable[..., T], *arguments: Any) -> T:
        """Do work on messages in the thread that makes batches."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *arguments)

    def partitions_of(self, messages: Sequence[Message]) -> list[int]:
        """Return where messages go, by their keys: the same as from Kafka's own clients."""
        number = len(self._client.cluster.partitions_for_topic(self.name))
        return [(self._hash(message.key) & 0x7FFFFFFF) % number for message in messages]

    async def append(self, partition: int, messages: Sequence[Message]) -> _Made:
        """Append the first of some messages, as many as a batch takes; TooLarge where none fits."""
        generation = self.generation
        while True:
            made = self._under_way.get(partition)
            if made is None:
                made = await self.call(self._make, partition, messages)
            elif made.first is not messages[0]:
                self._forget()  # what it was made of was given up
            if generation != self.generation or self._producer is None:
                raise Undelivered(f"topic {self.name}: the brokers forgot what we sent")
            self._under_way[partition] = made
            code = await self._asking(self._produce(partition, made.data))
            if code in {NO_ERROR, DUPLICATE}:
                if generation == self.generation:
                    del self._under_way[partition]
                    sent = self._sequences.get(partition, 0) + made.messages
                    self._sequences[partition] = sent % SEQUENCES
                return made
            self._refused(partition, code)
            if code not in TOO_LARGE:
                raise Undelivered(f"topic {self.name}: {_text(self._errors.for_code(code)())}")
            if made.messages == 1:
                raise TooLarge
            self._make_smaller(made)

    async def _begin(self) -> None:
        client = self._client
        await client.bootstrap()
        if not await client.set_topics([self.name]):
            raise Undelivered("no broker tells of its topics")
        partitions = client.cluster.partitions_for_topic(self.name)
        if not partitions:
            refused = self.name in client.cluster.unauthorized_topics
            problem = "we may not write to it" if refused else "there is no such topic: create it"
            raise Undelivered(f"topic {self.name}: {problem}")
        if self._producer is None:
            self._producer = await self._new_producer() if self._all_replicas else NOBODY

    async def _new_producer(self) -> tuple[int, int]:
        """Have the brokers number us: what has this number is told from what is repeated."""
        request = self._producer_request(transactional_id=None, transaction_timeout_ms=REQUEST_MS)
        answer = await self._client.send(self._client.get_random_node(), request)
        if answer.error_code != NO_ERROR:
            error = self._errors.for_code(answer.error_code)()
            raise Undelivered(f"no number as a producer: {_text(error)}")
        return answer.producer_id, answer.producer_epoch

    async def _produce(self, partition: int, data: bytes) -> int:
        """Send a batch to the leader of a partition; return the code of its answer."""
        cluster = self._client.cluster
        if partition not in (cluster.partitions_for_topic(self.name) or {partition}):
            self._forget()  # the topic was made anew, and not every broker says so by itself
            raise Undelivered(f"topic {self.name}: it has no partition {partition} any more")
        leader = cluster.leader_for_partition(self._aiokafka.TopicPartition(self.name, partition))
        if leader is None or leader < 0:
            raise Undelivered(f"topic {self.name}: partition {partition} has no leader")
        request = self._produce_request(
            transactional_id=None,
            required_acks=-1 if self._all_replicas else 1,
            timeout=REQUEST_MS,
            topics=[(self.name, [(partition, data)])],
        )
        answer = await self._client.send(leader, request)
        for topic, parts in answer.topics:
            for part in parts:
                if topic == self.name and part[0] == partition:
                    return int(part[1])
        raise Undelivered(f"topic {self.name}: an answer without partition {partition}")

    async def _asking(self, answer: Awaitable[T]) -> T:
        """Wait for a broker, who may say anything: that is no defect of ours."""
        try:
            return await answer
        except Undelivered:
            raise
        except Exception as error:
            said = self._said.last if type(error).__name__ in _VAGUE else ""
            raise Undelivered(
                said or f"{', '.join(self._access.brokers)}: {_text(error)}"
            ) from error

    def _make(self, partition: int, messages: Sequence[Message]) -> _Made:
        number, epoch = self._producer or NOBODY
        first, limit = self._sequences.get(partition, 0), self._batch_bytes
        builder = self._builder(2, self._codec, 0, number, epoch, first, limit)
        moment = int(self._clock() * 1000)
        count = 0
        for key, value in messages:
            if builder.append(count, moment, key, value, []) is None:
                break
            count += 1
        return _Made(messages[0], bytes(builder.build()), count, limit)

    def _refused(self, partition: int, code: int) -> None:
        """Note that a batch was not taken; where its fate is open it goes again as it is."""
        if code in ESTRANGED:
            self._forget()
        elif not self._errors.for_code(code).retriable:
            self._under_way.pop(partition, None)

    def _make_smaller(self, made: _Made) -> None:
        """Make smaller batches from now on than one that was too large."""
        smaller = made.limit // 2
        if smaller < self._batch_bytes:  # else another partition said so before
            log.warning(
                "topic %s takes no batch of %d bytes: of what is not compressed they have %d now",
                self.name, len(made.data), smaller,
            )  # fmt: skip
            self._batch_bytes = smaller

    def _forget(self) -> None:
        """Be another producer: of what was sent before nothing is known any more."""
        self.generation += 1
        self._producer = None
        self._sequences.clear()
        self._under_way.clear()


class _Context(ssl.SSLContext):
    """Looks for one name in certificates, whatever a broker is called; without one, for that."""

    name = ""

    def wrap_bio(self, *ends: Any, **options: Any) -> ssl.SSLObject:
        """Begin a session, as asyncio and uvloop do."""
        if self.name:
            options["server_hostname"] = self.name
        return super().wrap_bio(*ends, **options)


_VAGUE = frozenset({"KafkaConnectionError", "NodeNotReadyError"})
"""Errors of aiokafka whose reason it only logs."""


class _Said(logging.Handler):
    """What aiokafka last complained of. It goes no further: it repeats itself with each attempt."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.last = ""
        self._logger = logging.getLogger("aiokafka")

    def begin(self) -> None:
        """Listen, with nothing said so far."""
        self.last = ""
        self._logger.propagate = False
        self._logger.addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Remember a line, at most so much of it as anybody reads."""
        self.last = record.getMessage()[:300]

    def close(self) -> None:
        """Remember nothing more."""
        self._logger.removeHandler(self)
        super().close()


def _text(error: BaseException) -> str:
    """Say what an error is: its text, its name where that is empty."""
    return (str(error) or type(error).__name__)[:300]
