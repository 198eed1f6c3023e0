"""Trust in a CA that another one signed, without that one: by real handshakes."""

import socket
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from flowvis.aggregator.destinations.s3_client import Bucket, Credentials
from flowvis.cli.client import trusting
from flowvis.clickhouse.server import ServerStore
from flowvis.clickhouse.store import StoreSettings
from flowvis.inventory.sources.access import Kubeconfig
from flowvis.lab.apiserver import kubeconfig
from flowvis.runtime.trust import trusting_only
from flowvis.transport.certificates import Issued, issue_ca, issue_client, issue_server
from flowvis.transport.tls import TlsFiles
from waiting import PATIENCE_S


@dataclass
class Signed:
    """A CA that a root signed, and what it issued; `ca` is a file that has the CA alone."""

    root: Issued
    ca: Path
    server: tuple[Path, Path]
    client: tuple[Path, Path]


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> Signed:
    directory = tmp_path_factory.mktemp("signed")
    root, own = issue_ca("of the company"), issue_ca("of the cluster")
    certificate = own.certificate
    builder = x509.CertificateBuilder(
        root.certificate.subject,
        certificate.subject,
        certificate.public_key(),
        certificate.serial_number,
        certificate.not_valid_before_utc,
        certificate.not_valid_after_utc,
        [*certificate.extensions],
    )
    ca = Issued(builder.sign(root.key, hashes.SHA256()), own.key)
    return Signed(
        root,
        ca.write(directory, "ca")[0],
        issue_server(ca, ["localhost"]).write(directory, "server"),
        issue_client(ca, "node-1").write(directory, "client"),
    )


def of_an_exporter(signed: Signed) -> ssl.SSLContext:
    return TlsFiles(signed.ca, *signed.client).client_context()


def of_a_pod(signed: Signed) -> ssl.SSLContext:
    return trusting_only(signed.ca.read_text())


def of_a_kubeconfig(signed: Signed) -> ssl.SSLContext | None:
    cluster = {"certificate-authority": str(signed.ca)}
    path = kubeconfig(signed.ca.parent / "config", "https://localhost:1", {}, **cluster)
    return Kubeconfig(path).context()


def of_flowctl(signed: Signed) -> ssl.SSLContext:
    return trusting(signed.ca)


def of_a_bucket(signed: Signed) -> ssl.SSLContext:
    credentials = Credentials("id", "secret")
    return Bucket("b", credentials, region="r", ca_file=signed.ca)._trust()


def of_a_store(signed: Signed) -> ssl.SSLContext:
    settings = StoreSettings("tls://localhost:1", ca_cert=signed.ca)
    own = ServerStore(settings, "localhost", 1, secure=True)._make_client().own
    context: ssl.SSLContext = own._create_ssl_context(own.ssl_options)
    return context


def shaken(client: ssl.SSLContext, server: ssl.SSLContext) -> str:
    """Shake hands, and say what one end has to object."""
    here, there = socket.socketpair()
    objections = []

    def serve() -> None:
        try:
            with server.wrap_socket(there, server_side=True) as session:
                session.sendall(session.recv(1))
        except OSError as error:
            objections.append(str(error))

    serving = threading.Thread(target=serve)
    serving.start()
    try:
        here.settimeout(PATIENCE_S)
        with client.wrap_socket(here, server_hostname="localhost") as session:
            session.sendall(b"x")
            session.recv(1)
    except OSError as error:
        objections.insert(0, str(error))
    here.close()
    serving.join()
    return "; ".join(objections)


@pytest.mark.parametrize(
    "client",
    [of_an_exporter, of_a_pod, of_a_kubeconfig, of_flowctl, of_a_bucket, of_a_store],
)
def test_a_ca_below_a_root_is_trusted_as_it_is(
    client: Callable[[Signed], ssl.SSLContext], signed: Signed, tmp_path: Path
) -> None:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(*signed.server)
    assert shaken(client(signed), server) == ""
    # And nobody beside: not what its root signed as well.
    server.load_cert_chain(*issue_server(signed.root, ["localhost"]).write(tmp_path, "server"))
    assert "certificate verify failed" in shaken(client(signed), server)


def test_a_server_trusts_the_clients_of_such_a_ca(signed: Signed, tmp_path: Path) -> None:
    server = TlsFiles(signed.ca, *signed.server).server_context()
    assert shaken(of_an_exporter(signed), server) == ""
    other = issue_client(signed.root, "node-2").write(tmp_path, "client")
    refused = shaken(TlsFiles(signed.ca, *other).client_context(), server)
    assert "certificate verify failed" in refused  # says the server
