"""Records in Kafka: in a real broker, read back by Kafka's own programs and by others."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvloop
from aiokafka.producer.producer import AIOKafkaProducer

from flowvis.aggregator.destinations import kafka, kafka_client
from flowvis.aggregator.destinations.json_lines import json_lines
from flowvis.aggregator.destinations.kafka_client import Access, Message, Topic
from flowvis.aggregator.destinations.kind import Place, Surroundings
from flowvis.aggregator.destinations.loads import DEFECTS, Undelivered
from flowvis.aggregator.destinations.protobuf import Messages
from flowvis.aggregator.settings import AggregatorSettings
from flowvis.batch import Batch
from flowvis.fields import AGGREGATED
from flowvis.runtime.backoff import Backoff
from flowvis.runtime.dropped import OutgoingDropped
from flowvis.runtime.ledger import Stage
from flowvis.runtime.settings import effective, load
from waiting import PATIENCE_S, until

from .broker import NAME, PASSWORD, USER, Broker, Read
from .harness import connection, deliver, exported, running
from .records import numbered, records
from .test_flow_log import SOME, STORED

pytestmark = [
    pytest.mark.kafka,
    # aiokafka leaves a connection to the garbage collector where nobody waits for it any more.
    pytest.mark.filterwarnings(
        "ignore:Exception ignored in. <(socket|function _SelectorTransport)"
        ":pytest.PytestUnraisableExceptionWarning"
    ),
]


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    broker = Broker(tmp_path_factory.mktemp("kafka"))
    try:
        broker.prepare()
        broker.start()
        yield broker
    finally:
        broker.kill()


def chosen(broker: Broker, topic: str, door: str = "PLAINTEXT", **options: Any) -> kafka.Kafka:
    section = {
        "enable": True, "brokers": [broker.address(door)], "topic": topic, "flushInterval": "50ms",
        **options,
    }  # fmt: skip
    return load(AggregatorSettings, json.dumps({"kafka": section}).encode(), {}).kafka


def made(section: kafka.Kafka, stage: Stage | None = None) -> kafka.KafkaDestination:
    place = Place(stage or Stage("kafka"), 1 << 26, Surroundings(0.2, 1 << 30, lambda: 7))
    return kafka.make(section, place, None)


@asynccontextmanager
async def sending(section: kafka.Kafka, *batches: Batch) -> AsyncIterator[kafka.KafkaDestination]:
    """A destination that has these, and is stopped in the end."""
    sink = made(section)
    sink._backoff = Backoff(0.05, 0.2)
    await sink.start()
    for batch in batches:
        sink.put(batch)
    try:
        yield sink
    finally:
        await sink.stop()
        assert sink.queue.stage.imbalance == 0


async def sent(section: kafka.Kafka, *batches: Batch) -> kafka.KafkaDestination:
    async with sending(section, *batches) as sink:
        await until(lambda: sink.held() == 0)
    assert sink.queue.stage.dropped == {}
    return sink


def numbers(messages: list[Read]) -> list[int]:
    return [json.loads(one.value)["ipfix"]["octetTotalCount"] for one in messages]


def connections(count: int, first: int = 0, **fields: Any) -> Batch:
    """Records of different connections, by their octetTotalCount."""
    return records(
        *(
            {
                "sourceIP": f"10.0.{n // 250}.{n % 250}", "sourceTransportPort": 40_000 + n,
                "destinationIP": "10.1.0.1", "destinationTransportPort": 443,
                "protocolIdentifier": 6, "octetTotalCount": n, **fields,
            }
            for n in range(first, first + count)
        )
    )  # fmt: skip


async def test_objects_by_connection_as_kafkas_own_consumer_has_them(broker: Broker) -> None:
    topic = await broker.make_topic("documented")
    others = {"destinationIP": "10.0.0.2", "octetTotalCount": 7}
    six = {"sourceIP": "fd00::1", "sourceTransportPort": 5}
    batch = records(SOME | six, SOME, SOME | others)  # sent as IPv4 before IPv6
    sink = await sent(chosen(broker, topic), batch)
    found = await asyncio.to_thread(
        broker.run, "org.apache.kafka.tools.consumer.ConsoleConsumer", "--topic", topic,
        "--bootstrap-server", broker.address(), "--from-beginning", "--max-messages", "3",
        "--timeout-ms", f"{PATIENCE_S * 1000:.0f}", "--property", "print.key=true",
    )  # fmt: skip
    by_key = dict(line.split("\t") for line in found.splitlines())
    expected = {
        "10.0.0.1,40000,fd00::2,0,6": records(SOME),
        "10.0.0.1,40000,10.0.0.2,0,6": records(SOME | others),
        "fd00::1,5,fd00::2,0,6": records(SOME | six),
    }
    assert by_key.keys() == expected.keys()
    for key, one in expected.items():
        (line,) = json_lines(one, AGGREGATED, 0)
        assert json.loads(by_key[key])["ipfix"] == json.loads(line)["ipfix"]
    assert sink.stats.delivered == 1
    assert sink.stats.delivered_bytes > 0


async def test_a_connection_stays_in_its_partition_and_order(broker: Broker) -> None:
    topic = await broker.make_topic("order", partitions=5)
    again = connections(60, octetDeltaCount=1)
    await sent(chosen(broker, topic, maxBatchSize=1024), connections(60), again)
    found = await broker.read(topic)
    assert len({one.partition for one in found}) == 5
    assert all(len({o.partition for o in found if o.key == one.key}) == 1 for one in found)
    deltas: dict[bytes, list[int]] = {}
    for one in found:
        deltas.setdefault(one.key, []).append(json.loads(one.value)["ipfix"]["octetDeltaCount"])
    assert list(deltas.values()) == [[0, 1]] * 60
    # Where others' producers put the same keys.
    producer = AIOKafkaProducer(bootstrap_servers=broker.address())
    await producer.start()
    for one in found[::20]:
        put = await producer.send_and_wait(topic, b"", key=one.key)
        assert put.partition == one.partition
    await producer.stop()


async def test_protobuf_is_small(broker: Broker) -> None:
    topic = await broker.make_topic("protobuf", 1)
    batch = records(SOME, SOME | {"octetTotalCount": 9}, fields=STORED)
    await sent(chosen(broker, topic, recordFormat="Protobuf"), batch)
    found = await broker.read(topic)
    assert [one.value for one in found] == Messages()(batch)
    objects = list(json_lines(batch, AGGREGATED, 0))
    assert sum(len(one.value) for one in found) * 3 < sum(map(len, objects))


@pytest.mark.parametrize("codec", ["none", "gzip", "snappy", "lz4", "zstd"])
async def test_each_compression(broker: Broker, codec: str) -> None:
    topic = await broker.make_topic(f"as-{codec}", 1)
    sink = await sent(chosen(broker, topic, compression=codec), numbered(0, 300))
    assert numbers(await broker.read(topic)) == list(range(300))
    plain = 300 * len(next(json_lines(numbered(0, 1), AGGREGATED, 0)))
    assert (sink.stats.delivered_bytes > plain) == (codec == "none")


async def test_the_leaders_word_alone(broker: Broker) -> None:
    topic = await broker.make_topic("leader", 1)
    await sent(chosen(broker, topic, acks="leader"), numbered(0, 20), numbered(20, 5))
    assert numbers(await broker.read(topic)) == list(range(25))


def tls(broker: Broker, **options: Any) -> dict[str, Any]:
    return {"enable": True, "caFile": str(broker.directory / "ca.crt"), **options}


def shown(broker: Broker) -> dict[str, str]:
    place = broker.directory
    return {"certificateFile": f"{place}/client.crt", "keyFile": f"{place}/client.key"}


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_tls_with_a_certificate_and_by_another_name(
    broker: Broker, loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(over_tls(broker, f"by-{loop.__module__}"))


async def over_tls(broker: Broker, name: str) -> None:
    topic = await broker.make_topic(name, 1)
    await sent(chosen(broker, topic, "TLS", tls=tls(broker, **shown(broker))), numbered(0, 3))
    named = tls(broker, serverName=NAME)
    await sent(chosen(broker, topic, "NAMED", tls=named), numbered(3, 3))
    assert numbers(await broker.read(topic)) == list(range(6))


@pytest.mark.parametrize(
    ("door", "options", "problem"),
    [
        ("NAMED", {}, "IP address mismatch"),
        ("NAMED", {"serverName": "other.example"}, "Hostname mismatch"),
        ("TLS", {}, "closed"),
        ("SASL", {"caFile": None}, "certificate verify failed"),
        ("PLAINTEXT", {}, ""),
        ("TLS", {"certificateFile": "/none.crt", "keyFile": "/none.key"}, "/none.crt cannot be"),
    ],
)
async def test_tls_that_is_not_good_says_why(
    broker: Broker, door: str, options: dict[str, Any], problem: str
) -> None:
    section = chosen(broker, "tls", door, tls=tls(broker) | options)
    async with sending(section, numbered(0, 2)) as sink:
        await until(lambda: sink.problem)
        assert problem in sink.problem
        assert broker.address(door) in sink.problem or "/none" in sink.problem
        assert sink.held() == 2


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
async def test_a_name_and_a_password(broker: Broker, mechanism: str) -> None:
    topic = await broker.make_topic(f"by-{mechanism}", 1)
    sasl = {"mechanism": mechanism, "username": USER, "password": PASSWORD}
    section = chosen(broker, topic, "SASL", tls=tls(broker), sasl=sasl)
    await sent(section, numbered(0, 4))
    assert numbers(await broker.read(topic)) == list(range(4))
    wrong = chosen(broker, topic, "SASL", tls=tls(broker), sasl=sasl | {"password": "a guess"})
    async with sending(wrong, numbered(0, 1)) as sink:
        await until(lambda: sink.problem)
        assert "uthentication" in sink.problem
        assert "a guess" not in sink.problem + effective(wrong)


async def test_a_topic_that_is_made_later(broker: Broker) -> None:
    async with sending(chosen(broker, "later"), numbered(0, 3)) as sink:
        await until(lambda: sink.problem)
        assert sink.problem == "topic later: there is no such topic: create it"
        await broker.make_topic("later", 1)
        await until(lambda: sink.held() == 0)
        assert sink.problem == ""
    assert numbers(await broker.read("later")) == [0, 1, 2]


async def test_a_topic_that_is_made_anew_with_fewer_partitions(broker: Broker) -> None:
    await broker.make_topic("anew", 4)
    async with sending(chosen(broker, "anew"), connections(40)) as sink:
        await until(lambda: sink.held() == 0)
        await broker.delete_topic("anew")
        await broker.make_topic("anew", 1)
        sink.put(connections(40, first=100))
        await until(lambda: sink.held() == 0)
    assert sorted(numbers(await broker.read("anew")))[-40:] == list(range(100, 140))


async def test_partitions_that_are_gone_when_brokers_are_back_hold_up_nothing(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where brokers come back without what they had, and topics are made by themselves."""
    topic = await broker.make_topic("shrunk", 4)
    async with sending(chosen(broker, topic)) as sink:
        with monkeypatch.context() as patch:
            patch.setattr(sink._topic, "_produce", never)
            sink.put(connections(40))
            await until(lambda: sink.stats.failures > 1)
            await broker.delete_topic(topic)
            await broker.make_topic(topic, 1)
        await until(lambda: sink.held() == 0, state=lambda: sink.problem)
    found = Counter(numbers(await broker.read(topic)))
    assert found.keys() == set(range(40))  # at least once, as nobody knows what was there


async def test_records_that_are_too_large_are_named(
    broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    topic = await broker.make_topic("small", 2, max_message_bytes="10000")
    long = {"sourcePodLabels": "x" * 9000}
    labels = {5: long, 17: long | {"destinationPodLabels": "y" * 16_000}}
    batch = records(
        *({"sourceTransportPort": n, "octetTotalCount": n, **labels.get(n, {})} for n in range(200))
    )
    section = chosen(broker, topic, compression="none", maxMessageSize=20_000)
    async with sending(section, batch) as sink:
        await until(lambda: sink.held() == 0)
    assert sink.queue.stage.dropped == {OutgoingDropped.OVERSIZE: 2}
    assert sink.queue.stage.sent == 198
    found = await broker.read(topic)
    assert sorted(numbers(found)) == sorted(set(range(200)) - labels.keys())
    (said,) = [text for text in caplog.messages if "dropped 2 records" in text]
    assert ",17,," in said
    assert "yyy" not in said


@pytest.mark.parametrize("at_once", [kafka.AT_ONCE_BYTES, 20_000], ids=["whole", "in parts"])
async def test_an_answer_that_is_lost_repeats_nothing(
    broker: Broker, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka, "AT_ONCE_BYTES", at_once)
    topic = await broker.make_topic(f"once-{at_once}", 3)
    sink = made(chosen(broker, topic, maxBatchSize=20_000))
    sink._backoff = Backoff(0.05, 0.2)
    produce, lost = sink._topic._produce, Counter[int]()

    async def forgetful(partition: int, data: bytes) -> int:
        code = await produce(partition, data)
        lost[partition] += 1
        if lost[partition] == 2:
            raise ConnectionError("lost")
        return code

    sink._topic._produce = forgetful  # type: ignore[method-assign]
    await sink.start()
    sink.put(connections(200))
    await until(lambda: sink.held() == 0)
    await sink.stop()
    assert sink.stats.failures >= 1
    assert sink.stats.delivered == 1
    assert sorted(numbers(await broker.read(topic))) == list(range(200))


async def test_messages_are_numbered_from_0_again_after_2_to_the_31(broker: Broker) -> None:
    topic = await broker.make_topic("numbers", 1)
    sink = made(chosen(broker, topic))
    sink._topic._sequences[0] = (1 << 31) - 15
    await sink.start()
    for first in range(0, 50, 10):
        sink.put(connections(10, first=first))
        await until(lambda: sink.held() == 0)
    await sink.stop()
    assert (sink.queue.stage.dropped, sink.stats.failures) == ({}, 0)
    assert numbers(await broker.read(topic)) == list(range(50))


async def test_a_broker_that_is_frozen_has_nothing_twice(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its requests wait in its sockets, and are sent again meanwhile."""
    topic = await broker.make_topic("frozen", 3)
    with monkeypatch.context() as patch:
        patch.setattr(kafka_client, "REQUEST_MS", 400)
        async with sending(chosen(broker, topic, maxBatchSize=8192), connections(50)) as sink:
            await until(lambda: sink.held() == 0)
            with broker.frozen():
                sink.put(connections(200, first=50))
                await until(lambda: sink.stats.failures >= 2)
                assert sink.held() == 200
            await until(lambda: sink.held() == 0)
    assert sorted(numbers(await broker.read(topic))) == list(range(250))


async def test_the_brokers_forget_us_amid_a_load(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One partition's answer says so while the others' are under way: we begin anew, once."""
    topic = await broker.make_topic("strangers", 4)
    sink = made(chosen(broker, topic, maxBatchSize=4096))
    sink._backoff = Backoff(0.05, 0.2)
    produce, asked = sink._topic._produce, Counter[int]()

    async def forgetful(partition: int, data: bytes) -> int:
        asked[partition] += 1
        if (partition, asked[partition]) == (2, 2):
            return 59  # UNKNOWN_PRODUCER_ID
        return await produce(partition, data)

    with monkeypatch.context() as patch:
        patch.setattr(sink._topic, "_produce", forgetful)
        await sink.start()
        sink.put(connections(300))
        await until(lambda: sink.held() == 0)
        await sink.stop()
    assert (sink._topic.generation, sink.stats.failures) == (1, 1)
    found = Counter(numbers(await broker.read(topic)))
    assert found.keys() == set(range(300))  # at least once: what was under way may be there twice


async def test_what_was_given_up_is_not_taken_for_what_comes_next(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = Topic(
        await broker.make_topic("given-up", 1), Access((broker.address(),)),
        codec="none", all_replicas=True, batch_bytes=4096,
    )  # fmt: skip
    old, new = (
        [Message(b"k", f"{word}-{n}".encode()) for n in range(3)] for word in ("old", "new")
    )
    await topic.open()
    with monkeypatch.context() as patch:
        patch.setattr(topic, "_produce", never)
        with pytest.raises(Undelivered, match="no answer"):
            await topic.append(0, old)
    with pytest.raises(Undelivered, match="forgot"):
        await topic.append(0, new)
    await topic.disconnect()
    await topic.open()
    assert (await topic.append(0, new)).messages == 3
    await topic.close()
    assert [one.value for one in await broker.read("given-up")] == [one.value for one in new]


async def never(_partition: int, _data: bytes) -> int:
    raise ConnectionError("no answer")


async def test_what_an_answer_says_may_be_anything(broker: Broker) -> None:
    """A server that speaks something else is no reason to give records up."""

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n" + b"\0\0\0\4\0\0\0\1" + b"\0" * 64)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    options = {"enable": True, "brokers": [f"127.0.0.1:{port}"]}
    section = load(AggregatorSettings, json.dumps({"kafka": options}).encode(), {}).kafka
    async with server, sending(section, numbered(0, 2)) as sink:
        await until(lambda: sink.stats.failures > DEFECTS)
        assert sink.held() == 2


async def test_another_takes_its_place_while_the_topic_is_missing(broker: Broker) -> None:
    sink = made(chosen(broker, "missing"))
    await sink.start()
    sink.put(connections(30))
    await until(lambda: sink.problem)
    hurry = asyncio.Event()
    hurry.set()
    await sink.retire(hurry)
    topic = await broker.make_topic("found", 2)
    place = Place(sink.queue.stage, 1 << 26, Surroundings(0.2, 1 << 30, lambda: 7))
    other = kafka.make(chosen(broker, topic), place, sink)
    other.succeed(sink.remainder())
    await other.start()
    await until(lambda: other.held() == 0)
    await other.stop()
    assert other.stats is sink.stats
    assert (other.queue.stage.imbalance, other.queue.stage.dropped) == (0, {})
    assert sorted(numbers(await broker.read(topic))) == list(range(30))


@pytest.mark.slow
async def test_a_broker_that_is_killed_and_comes_back(broker: Broker) -> None:
    topic = await broker.make_topic("away", 3)
    async with sending(chosen(broker, topic, maxBatchSize=4096), connections(300)) as sink:
        await until(lambda: sink.held() < 300)
        broker.kill()
        sink.put(connections(300, first=300))
        await until(lambda: sink.problem)
        assert "127.0.0.1" in sink.problem
        await asyncio.to_thread(broker.start)
        await until(lambda: sink.held() == 0)
        sink.put(connections(5, first=600))
        await until(lambda: sink.held() == 0)
    found = numbers(await broker.read(topic))
    assert sorted(found) == list(range(605))


def test_the_daemon_sends_and_changes_its_topic(broker: Broker, tmp_path: Path) -> None:
    for topic in ("first", "second"):
        asyncio.run(broker.make_topic(topic, 1))
    options = {"enable": True, "brokers": [broker.address()], "flushInterval": "50ms"}
    with running(tmp_path / "aggregator", {"kafka": options | {"topic": "first"}}) as aggregator:
        for round_, topic in enumerate(("first", "second")):
            halves = [connection(round_, source=source) for source in (True, False)]
            deliver(aggregator, exported(*halves))
            aggregator.until("kafka", "sent", round_ + 1)
            assert aggregator.metrics()["flowvis_aggregator_kafka_delivered_total"] == round_ + 1
            (one,) = asyncio.run(broker.read(topic))
            assert json.loads(one.value)["ipfix"]["sourcePodName"] == f"client-{round_}"
            aggregator.configure({"kafka": options | {"topic": "second"}})
            aggregator.logged("kafka.topic")
        assert aggregator.stop() == 0
