import asyncio
import base64
import contextlib
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from aiohttp import web
from cryptography import x509

from flowvis.aggregator.certificates.authority import PUBLISHED, RENEW, Names
from flowvis.aggregator.certificates.keeper import Certificates
from flowvis.errors import SystemRefused
from flowvis.inventory.sources.access import InCluster
from flowvis.lab.apiserver import ApiServer, service_account, status
from flowvis.transport.certificates import VALIDITY, issue_ca, issue_server
from flowvis.transport.tls import TlsFiles
from waiting import PATIENCE_S, until

NAMES = Names(namespace="here")
SERVER = "flow-aggregator.here.svc"


class Clock:
    """Begins so long ago that a CA made then is due now: OpenSSL has its own clock."""

    def __init__(self) -> None:
        self.now = datetime.now(UTC) - (VALIDITY - RENEW) - PUBLISHED

    def __call__(self) -> datetime:
        return self.now


class Cluster:
    """An API server over TLS, and aggregators in Pods of it."""

    def __init__(self, folder: Path) -> None:
        ca = issue_ca()
        certificate, key = issue_server(ca, ["127.0.0.1"]).write(folder, "api")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        self.server = ApiServer(tokens={"good"}, tls=context)
        self.clock = Clock()
        self._folder = folder
        self._account = service_account(folder / "account", "good", ca.certificate_pem())

    def files(self, replica: int) -> TlsFiles:
        folder = self._folder / f"replica{replica}"
        return TlsFiles(folder / "ca.crt", folder / "tls.crt", folder / "tls.key")

    def replica(self, number: int = 0) -> Certificates:
        environment = {
            "KUBERNETES_SERVICE_HOST": "127.0.0.1",
            "KUBERNETES_SERVICE_PORT": str(self.server.port),
        }
        return Certificates(
            lambda: InCluster(environment, self._account),
            NAMES,
            self.files(number),
            [SERVER],
            look_s=0.02,
            now=self.clock,
        )

    def item(self, plural: str, name: str) -> dict[str, str]:
        data: dict[str, str] = self.server.objects["v1", plural, "here", name]["data"]
        return data

    def lose(self, kind: str, name: str) -> None:
        self.server.remove({"kind": kind, "metadata": {"namespace": "here", "name": name}})

    def client_files(self, folder: Path) -> TlsFiles:
        """What the kubelet mounts into an exporter."""
        folder.mkdir(exist_ok=True)
        pair = self.item("secrets", NAMES.client_secret)
        for name in ("tls.crt", "tls.key"):
            (folder / name).write_bytes(base64.b64decode(pair[name]))
        (folder / "ca.crt").write_text(self.item("configmaps", NAMES.ca_config_map)["ca.crt"])
        return TlsFiles(folder / "ca.crt", folder / "tls.crt", folder / "tls.key")

    def bundle(self) -> list[x509.Certificate]:
        text = self.item("configmaps", NAMES.ca_config_map)["ca.crt"]
        return x509.load_pem_x509_certificates(text.encode())


@asynccontextmanager
async def running(folder: Path, replicas: int = 1) -> AsyncIterator[Cluster]:
    cluster = Cluster(folder)
    await cluster.server.start()
    made = [cluster.replica(number) for number in range(replicas)]
    try:
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.gather(*(replica.start() for replica in made))
        yield cluster
    finally:
        for replica in made:
            await replica.stop()
        await cluster.server.stop()


def handshake(server: ssl.SSLContext, client: ssl.SSLContext, name: str = SERVER) -> None:
    """Both ends verify each other, in memory."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(down, up, server_hostname=name),
        server.wrap_bio(up, down, server_side=True),
    ]
    done: set[ssl.SSLObject] = set()
    for _ in range(10):
        for end in ends:
            with contextlib.suppress(ssl.SSLWantReadError):
                end.do_handshake()
                done.add(end)
    assert len(done) == 2


async def test_exporters_and_aggregator_trust_each_other(tmp_path: Path) -> None:
    async with running(tmp_path) as cluster:
        client = cluster.client_files(tmp_path / "exporter").client_context()
        handshake(cluster.files(0).server_context(), client)
        with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
            handshake(cluster.files(0).server_context(), client, "another.here.svc")
        key = cluster.files(0).key
        assert isinstance(key, Path)
        assert key.stat().st_mode & 0o777 == 0o600


async def test_replicas_agree_on_one_ca(tmp_path: Path) -> None:
    async with running(tmp_path, replicas=4) as cluster:
        assert len(cluster.bundle()) == 1
        client = cluster.client_files(tmp_path / "exporter").client_context()
        for number in range(4):
            handshake(cluster.files(number).server_context(), client)


@pytest.mark.parametrize(
    ("kind", "plural", "name"),
    [
        ("Secret", "secrets", NAMES.ca_secret),
        ("ConfigMap", "configmaps", NAMES.ca_config_map),
        ("Secret", "secrets", NAMES.client_secret),
    ],
)
async def test_a_deleted_object_is_there_again(
    tmp_path: Path, kind: str, plural: str, name: str
) -> None:
    async with running(tmp_path) as cluster:
        cluster.lose(kind, name)
        await until(lambda: ("v1", plural, "here", name) in cluster.server.objects)

        def connected() -> bool:
            """What the CA signed follows one by one."""
            with contextlib.suppress(ssl.SSLError):
                client = cluster.client_files(tmp_path / "exporter").client_context()
                handshake(cluster.files(0).server_context(), client)
                return True
            return False

        await until(connected)


async def test_the_ca_is_replaced_and_those_who_know_the_old_one_still_connect(
    tmp_path: Path,
) -> None:
    async with running(tmp_path) as cluster:
        first = cluster.bundle()[0]
        slow = cluster.client_files(tmp_path / "slow").client_context()
        cluster.clock.now += VALIDITY - RENEW
        await until(lambda: len(cluster.bundle()) == 2)
        handshake(cluster.files(0).server_context(), slow)
        read = cluster.client_files(tmp_path / "read").client_context()
        cluster.clock.now += PUBLISHED
        await until(lambda: cluster.bundle()[0] != first)
        fresh = cluster.bundle()[0]

        def signed() -> bool:
            path = cluster.files(0).certificate
            assert path is not None
            return x509.load_pem_x509_certificate(path.read_bytes()).issuer == fresh.subject

        await until(signed)
        server = cluster.files(0).server_context()
        handshake(server, read)  # with a certificate from the old one
        handshake(server, cluster.client_files(tmp_path / "new").client_context())


async def test_while_the_api_is_away_all_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(tmp_path) as cluster:
        before = cluster.files(0).fingerprint()
        with cluster.server.failing(lambda _: status(503, "no leader")):
            await until(lambda: "no leader" in caplog.text)
        assert cluster.files(0).fingerprint() == before
        cluster.lose("ConfigMap", NAMES.ca_config_map)
        await until(
            lambda: ("v1", "configmaps", "here", NAMES.ca_config_map) in cluster.server.objects
        )


async def test_it_waits_for_the_api_and_says_why(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cluster = Cluster(tmp_path)
    await cluster.server.start()
    replica = cluster.replica()

    def forbidden(request: web.Request) -> web.Response | None:
        return status(403, "secrets is forbidden") if request.method == "POST" else None

    with cluster.server.failing(forbidden):
        starting = asyncio.create_task(replica.start())
        await until(lambda: "secrets is forbidden" in caplog.text)
        assert not starting.done()
    await starting
    assert replica.stats.failures >= 1
    assert replica.stats.writes == 3
    await replica.stop()
    await cluster.server.stop()


async def test_a_start_can_be_given_up(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path)
    await cluster.server.start()
    await cluster.server.stop()
    replica = cluster.replica()
    starting = asyncio.create_task(replica.start())
    await until(lambda: replica.stats.failures)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting


async def test_a_directory_of_somebody_else_ends_the_start(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path)
    await cluster.server.start()
    (tmp_path / "replica0").write_text("in the way")
    with pytest.raises(SystemRefused, match=r"replica0: cannot write certificates"):
        await cluster.replica().start()
    await cluster.server.stop()


async def test_one_who_always_writes_first_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(tmp_path) as cluster:

        def conflict(request: web.Request) -> web.Response | None:
            return status(409, "modified") if request.method == "PUT" else None

        with cluster.server.failing(conflict):
            cluster.clock.now += VALIDITY - RENEW
            await until(lambda: "does something else write the same Secrets" in caplog.text)
