import stat
import subprocess
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from flowvis.errors import SystemRefused
from flowvis.transport.certificates import Issued, issue_ca, issue_client, issue_server, load_ca

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def test_openssl_accepts_the_chains(tmp_path: Path) -> None:
    ca = issue_ca("test")
    root, _ = ca.write(tmp_path, "ca")
    server, _ = issue_server(ca, ["flow-aggregator.ns.svc", "10.0.0.1"]).write(tmp_path, "server")
    client, _ = issue_client(ca, "node-1").write(tmp_path, "client")
    for certificate, options in (
        (server, ["-purpose", "sslserver", "-verify_hostname", "flow-aggregator.ns.svc"]),
        (server, ["-purpose", "sslserver", "-verify_ip", "10.0.0.1"]),
        (client, ["-purpose", "sslclient"]),
    ):
        command = ["openssl", "verify", "-x509_strict", "-CAfile", str(root)]
        assert subprocess.run(
            [*command, *options, str(certificate)], capture_output=True, text=True, check=True
        ).stdout


@pytest.mark.parametrize("key_id", [None, b"a key's name of its own"])
@pytest.mark.parametrize(
    "subject",
    [
        [
            (NameOID.COUNTRY_NAME, "US"),
            (NameOID.ORGANIZATION_NAME, "o"),
            (NameOID.COMMON_NAME, "c"),
        ],
        [(NameOID.ORGANIZATION_NAME, "o")],
    ],
)
def test_openssl_accepts_what_a_ca_of_others_issues(
    tmp_path: Path, subject: list[tuple[x509.ObjectIdentifier, str]], key_id: bytes | None
) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(oid, value) for oid, value in subject])
    builder = (
        x509.CertificateBuilder(name, name, key.public_key(), 1)
        .not_valid_before(datetime.now(UTC) - timedelta(days=1))
        .not_valid_after(datetime.now(UTC) + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    )
    if key_id is not None:
        builder = builder.add_extension(x509.SubjectKeyIdentifier(key_id), critical=False)
    ca = Issued(builder.sign(key, hashes.SHA256()), key)
    root, _ = ca.write(tmp_path, "ca")
    client, _ = issue_client(ca, "node-1").write(tmp_path, "client")
    command = ["openssl", "verify", "-CAfile", str(root), "-purpose", "sslclient", str(client)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout == f"{client}: OK\n", done.stderr


def test_names_times_and_modes(tmp_path: Path) -> None:
    ca = issue_ca("test", now=NOW)
    issued = issue_server(ca, ["a.example", "10.0.0.1", "fd00::1"], now=NOW)
    names = issued.certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert names.value.get_values_for_type(x509.DNSName) == ["a.example"]
    assert names.value.get_values_for_type(x509.IPAddress) == [
        ip_address("10.0.0.1"),
        ip_address("fd00::1"),
    ]
    assert issued.certificate.not_valid_before_utc == NOW - timedelta(hours=1)
    assert issued.certificate.not_valid_after_utc == NOW + timedelta(days=365)
    directory = tmp_path / "made"
    for _ in range(2):
        certificate, key = issued.write(directory, "server")
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert stat.S_IMODE(certificate.stat().st_mode) == 0o644
    assert sorted(path.name for path in directory.iterdir()) == ["server.crt", "server.key"]


def test_ca_is_read_back_and_goes_on_issuing(tmp_path: Path) -> None:
    ca = issue_ca()
    ca.write(tmp_path, "ca")
    again = load_ca(tmp_path)
    assert again.certificate == ca.certificate
    issue_client(again, "n").certificate.verify_directly_issued_by(ca.certificate)


def test_what_is_no_ca(tmp_path: Path) -> None:
    with pytest.raises(SystemRefused, match="no CA can be read"):
        load_ca(tmp_path)
    ca, other = issue_ca(), issue_ca()
    ca.write(tmp_path, "ca")
    other.write(tmp_path, "other")
    (tmp_path / "other.key").replace(tmp_path / "ca.key")
    with pytest.raises(SystemRefused, match="is not the EC key of"):
        load_ca(tmp_path)


def test_directory_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemRefused, match="cannot write certificates"):
        issue_ca().write(tmp_path / "file", "ca")
