"""Apache Kafka as a process of ours: one node (KRaft) with a door for each way to come in."""

import contextlib
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from aiokafka import AIOKafkaConsumer, ConsumerRecord
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from flowvis.transport.certificates import issue_ca, issue_client, issue_server
from ports import free_port
from waiting import PATIENCE_S, block_until

JARS = Path(sys.prefix) / "kafka"
USER, PASSWORD = "flowvis", "a secret"
NAME = "kafka.example"
"""Whom the broker's certificate is for, beside 127.0.0.1."""

DOORS = {"PLAINTEXT": "PLAINTEXT", "TLS": "SSL", "SASL": "SASL_SSL", "NAMED": "SSL"}
"""Listeners and their protocols. NAMED has a certificate for another name only."""

SETTINGS = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{CONTROLLER}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
log.dirs={directory}/data
auto.create.topics.enable=false
offsets.topic.replication.factor=1
log.cleaner.enable=false
broker.heartbeat.interval.ms=200
broker.session.timeout.ms=3000
group.initial.rebalance.delay.ms=0
num.network.threads=1
num.io.threads=2
sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512
listener.name.sasl.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_{user}="{password}";
listener.name.sasl.scram-sha-256.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.sasl.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
ssl.keystore.type=PEM
ssl.truststore.type=PEM
listener.name.tls.ssl.client.auth=required
"""  # noqa: E501  lines of a file

LOGGING = """\
Configuration:
  Appenders: {Console: {name: OUT, PatternLayout: {pattern: "%p %c %m%n"}}}
  Loggers: {Root: {level: WARN, AppenderRef: {ref: OUT}}}
"""


@dataclass(frozen=True)
class Read:
    """A message as a reader has it."""

    partition: int
    key: bytes
    value: bytes
    timestamp_ms: int


class Broker:
    """Runs in little memory; topics are made and read by the first door."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.ports = {door: free_port() for door in (*DOORS, "CONTROLLER")}
        self._process: subprocess.Popen[bytes] | None = None

    def address(self, door: str = "PLAINTEXT") -> str:
        return f"127.0.0.1:{self.ports[door]}"

    def prepare(self) -> None:
        """Write its settings and certificates, and the users."""
        assert JARS.is_dir(), f"no Kafka: run packages/jars kafka {JARS}"
        ca = issue_ca()
        ca.write(self.directory, "ca")
        issue_client(ca, "aggregator").write(self.directory, "client")
        for name, whom in (("server", ["127.0.0.1"]), ("named", [NAME])):
            certificate, key = issue_server(ca, whom).write(self.directory, name)
            (self.directory / f"{name}.pem").write_bytes(
                key.read_bytes() + certificate.read_bytes()
            )
        doors = DOORS | {"CONTROLLER": "PLAINTEXT"}
        listeners = ",".join(f"{door}://127.0.0.1:{self.ports[door]}" for door in doors)
        lines = [
            f"listeners={listeners}",
            "listener.security.protocol.map=" + ",".join(f"{k}:{v}" for k, v in doors.items()),
        ]
        for door, name in (("tls", "server"), ("sasl", "server"), ("named", "named")):
            prefix = f"listener.name.{door}.ssl"
            lines += [
                f"{prefix}.keystore.location={self.directory}/{name}.pem",
                f"{prefix}.truststore.location={self.directory}/ca.crt",
            ]
        settings = SETTINGS.format(
            directory=self.directory, user=USER, password=PASSWORD, **self.ports
        )
        (self.directory / "server.properties").write_text(settings + "\n".join(lines))
        (self.directory / "log4j2.yaml").write_text(LOGGING)
        users = [
            f"--add-scram={mechanism}=[name={USER},iterations=4096,password={PASSWORD}]"
            for mechanism in ("SCRAM-SHA-256", "SCRAM-SHA-512")
        ]
        cluster = "AAAAAAAAAAAAAAAAAAAAAQ"
        self.run("kafka.tools.StorageTool", "format", "-t", cluster, "-c", self._settings, *users)

    def start(self) -> None:
        """Start it, and wait until it takes connections."""
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*self._java(), "kafka.Kafka", self._settings],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.directory,
            )
        block_until(self._answers, self._log, despite=(OSError,))

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """It does nothing meanwhile; the kernel takes what is sent to it."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def run(self, *arguments: str) -> str:
        """Run one of Kafka's own programs; return what it prints."""
        done = subprocess.run(
            [*self._java(), *arguments],
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            cwd=self.directory,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    async def make_topic(self, name: str, partitions: int = 3, **settings: str) -> str:
        """Make a topic; settings have underscores for dots."""
        named = {key.replace("_", "."): value for key, value in settings.items()}
        topic = NewTopic(name, partitions, 1, topic_configs=named)
        async with self._admin() as admin:
            answer = await admin.create_topics([topic])
        assert [error for _, error, *_ in answer.topic_errors] == [0], answer
        return name

    async def delete_topic(self, name: str) -> None:
        async with self._admin() as admin:
            await admin.delete_topics([name])

    async def read(self, topic: str) -> list[Read]:
        """Read what is in a topic: partition by partition, in order."""
        consumer = AIOKafkaConsumer(
            topic, bootstrap_servers=self.address(), auto_offset_reset="earliest"
        )
        await consumer.start()
        try:
            places = consumer.assignment()
            ends = await consumer.end_offsets(places)
            found: list[Read] = []
            for place in sorted(places):
                while (at := await consumer.position(place)) < ends[place]:
                    batches = await consumer.getmany(place, timeout_ms=round(PATIENCE_S * 1000))
                    assert batches, f"nothing comes of {place} from {at} on"
                    found += [_read(one) for batch in batches.values() for one in batch]
            return found
        finally:
            await consumer.stop()

    @contextlib.asynccontextmanager
    async def _admin(self):  # type: ignore[no-untyped-def]
        admin = AIOKafkaAdminClient(bootstrap_servers=self.address())
        await admin.start()
        try:
            yield admin
        finally:
            await admin.close()

    @property
    def _settings(self) -> str:
        return str(self.directory / "server.properties")

    def _java(self) -> list[str]:
        memory = ["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
        logs = f"-Dlog4j2.configurationFile={self.directory}/log4j2.yaml"
        return ["java", *memory, logs, "-cp", f"{JARS}/*"]

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self._log()
        for door in DOORS:
            socket.create_connection(("127.0.0.1", self.ports[door]), 1).close()
        return True

    def _log(self) -> str:
        return (self.directory / "log").read_text()[-3000:]


def _read(one: ConsumerRecord) -> Read:
    return Read(one.partition, one.key, one.value, one.timestamp)
