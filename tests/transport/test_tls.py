import ssl
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from flowvis.errors import SettingsError
from flowvis.transport.tls import TlsFiles, TlsReloader

from .conftest import Pki, few_descriptors, make_pki, path_of


def files(pki: Pki, **changes: Path | str | None) -> TlsFiles:
    server = pki.server
    values = {"ca": server.ca, "certificate": server.certificate, "key": server.key}
    return TlsFiles(**(values | changes))  # type: ignore[arg-type]


def problems(tls: TlsFiles) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        tls.server_context()
    return caught.value.problems


def test_contexts(pki: Pki) -> None:
    server, client = pki.server.server_context(), pki.client.client_context()
    assert server.verify_mode == client.verify_mode == ssl.CERT_REQUIRED
    assert client.check_hostname
    assert server.minimum_version == client.minimum_version == ssl.TLSVersion.TLSv1_2
    strict = files(pki, min_version="VersionTLS13").server_context()
    assert strict.minimum_version == ssl.TLSVersion.TLSv1_3


def test_system_roots_where_no_ca_is_named() -> None:
    assert TlsFiles().client_context().verify_mode == ssl.CERT_REQUIRED


def test_every_fault_names_its_file(pki: Pki, tmp_path: Path) -> None:
    garbage = tmp_path / "garbage.pem"
    garbage.write_bytes(b"nothing")
    broken = tmp_path / "broken.pem"
    broken.write_bytes(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    encrypted = tmp_path / "encrypted.key"
    encrypted.write_bytes(
        pki.ca.key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    missing = tmp_path / "missing"
    assert problems(files(pki, ca=missing, key=garbage)) == [
        f"tls.ca: {missing} cannot be read: No such file or directory",
        f"tls.key: {garbage} is not PEM: it has no line that ends in PRIVATE KEY-----",
    ]
    assert problems(files(pki, key=encrypted)) == [
        f"tls.key: {encrypted} is encrypted: remove the passphrase (openssl pkey)"
    ]
    assert problems(files(pki, key=path_of(pki.client.key))) == [
        f"tls.key: {pki.client.key} is not the key of {pki.server.certificate}"
    ]
    (problem,) = problems(files(pki, certificate=broken))
    assert problem.startswith(f"tls.certificate: {broken} and {pki.server.key}: ")
    (problem,) = problems(files(pki, ca=broken))
    assert problem.startswith(f"tls.ca: {broken}: ")
    assert problems(TlsFiles()) == [
        "tls.ca: no file is named; a server needs one",
        "tls.certificate: no file is named; a server needs one",
        "tls.key: no file is named; a server needs one",
    ]
    with pytest.raises(SettingsError, match=r"tls\.certificate: a certificate and its key go"):
        TlsFiles(pki.client.ca, pki.client.certificate, None).client_context()
    with pytest.raises(SettingsError, match=r"tls\.key: a certificate and its key go"):
        TlsFiles(pki.client.ca, None, pki.client.key).client_context()


def test_swapped_symbolic_link_is_noticed(tmp_path: Path) -> None:
    """As kubelet updates a mounted Secret."""
    for name in ("one", "two"):
        make_pki(tmp_path / name)
    data = tmp_path / "..data"
    data.symlink_to("one")
    reloader = TlsReloader(
        TlsFiles(data / "ca.crt", data / "server.crt", data / "server.key"), server=True
    )
    first = reloader.context()
    assert reloader.context() is first
    assert not reloader.refresh()
    fresh = tmp_path / "..tmp"
    fresh.symlink_to("two")
    fresh.replace(data)
    assert reloader.refresh()
    assert reloader.context() is not first
    assert (reloader.reloads, reloader.failures) == (1, 0)


def test_bad_change_keeps_the_last_good_context_and_is_reported_once(tmp_path: Path) -> None:
    pki = make_pki(tmp_path)
    reloader = TlsReloader(pki.server, server=True)
    first = reloader.context()
    key = path_of(pki.server.key)
    good = key.read_bytes()
    key.unlink()
    with pytest.raises(SettingsError, match="cannot be read"):
        reloader.refresh()
    assert not reloader.refresh()
    assert reloader.context() is first
    key.write_bytes(good)
    assert reloader.refresh()
    assert (reloader.reloads, reloader.failures) == (1, 1)


class Held:
    """PEM that no file has."""

    def __init__(self, content: bytes) -> None:
        self.content = content

    def read_bytes(self) -> bytes:
        if not self.content:
            raise FileNotFoundError(2, "somebody is to make it")
        return self.content

    def __str__(self) -> str:
        return "what is held"


@pytest.mark.parametrize("free", [0, 1, 2])
def test_a_change_that_comes_without_descriptors_is_taken_when_there_are(
    tmp_path: Path, free: int
) -> None:
    reloader = TlsReloader(make_pki(tmp_path).server, server=True)
    before = reloader.context()
    make_pki(tmp_path)
    with few_descriptors(free):
        with pytest.raises(SettingsError, match="Too many open files"):
            reloader.refresh()
        assert not reloader.refresh()
        assert reloader.context() is before
    assert reloader.refresh()
    assert reloader.context() is not before
    assert reloader.failures == 1


def test_what_reads_like_a_file_is_as_good_as_one(pki: Pki) -> None:
    ours, theirs = pki.server, pki.client
    ca, certificate, key = (
        Held(path_of(p).read_bytes()) for p in (ours.ca, ours.certificate, ours.key)
    )
    reloader = TlsReloader(TlsFiles(ca, certificate, key), server=True)
    first = reloader.context()
    assert [one["subject"] for one in first.get_ca_certs()]
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    key.content = path_of(theirs.key).read_bytes()
    with pytest.raises(SettingsError, match="what is held is not the key of what is held"):
        reloader.refresh()
    key.content = b""
    problem = r"^tls\.key: what is held cannot be read: somebody is to make it$"
    with pytest.raises(SettingsError, match=problem):
        reloader.refresh()
    assert reloader.context() is first
    certificate.content = path_of(theirs.certificate).read_bytes()
    key.content = path_of(theirs.key).read_bytes()
    assert reloader.refresh()
    assert len(list(Path("/proc/self/fd").iterdir())) == descriptors


def test_comments_in_a_bundle_may_be_of_any_language(pki: Pki, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle.pem"
    bundle.write_bytes("# Autorité Été\n".encode() + path_of(pki.server.ca).read_bytes())
    assert len(files(pki, ca=bundle).client_context().get_ca_certs()) == 1
