import base64
import contextlib
import ssl
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from flowvis.aggregator.certificates.authority import (
    PUBLISHED,
    RENEW,
    Authority,
    Found,
    Names,
    NextWrite,
    decide,
    renewed_server,
)
from flowvis.transport.certificates import VALIDITY, Issued, issue_ca, issue_client, issue_server

NAMES = Names()
NOW = datetime(2026, 11, 21, 9, 0, 0, tzinfo=UTC)
DAY = timedelta(days=1)
Object = dict[str, Any]


class Cluster:
    """The three objects, as an API server would keep them."""

    def __init__(self) -> None:
        self.items: dict[str, Object] = {}
        self.version = 0

    def found(self) -> Found:
        return Found(
            self.items.get(NAMES.ca_secret),
            self.items.get(NAMES.ca_config_map),
            self.items.get(NAMES.client_secret),
        )

    def write(self, step: NextWrite) -> bool:
        name = step.item["metadata"]["name"]
        there = self.items.get(name)
        known = step.item["metadata"].get("resourceVersion")
        if (there["metadata"]["resourceVersion"] if there else None) != known:
            return False
        self.version += 1
        metadata = step.item["metadata"] | {"resourceVersion": str(self.version)}
        self.items[name] = step.item | {"metadata": metadata}
        return True

    def settle(self, now: datetime) -> tuple[Authority, list[str]]:
        reasons: list[str] = []
        for _ in range(10):
            step = decide(self.found(), NAMES, now)
            if isinstance(step, Authority):
                return step, reasons
            reasons.append(step.reason)
            assert self.write(step)
        raise AssertionError(reasons)

    def text(self, name: str, key: str) -> str:
        return base64.b64decode(self.items[name]["data"][key]).decode()

    def set(self, name: str, key: str, text: str) -> None:
        self.items[name]["data"][key] = base64.b64encode(text.encode()).decode()

    @property
    def bundle(self) -> list[x509.Certificate]:
        text = self.items[NAMES.ca_config_map]["data"]["ca.crt"]
        return x509.load_pem_x509_certificates(text.encode())

    @property
    def client(self) -> x509.Certificate:
        text = self.text(NAMES.client_secret, "tls.crt")
        return x509.load_pem_x509_certificate(text.encode())


@pytest.fixture
def cluster() -> Cluster:
    made = Cluster()
    made.settle(NOW)
    return made


def trusted(certificate: x509.Certificate, bundle: list[x509.Certificate]) -> bool:
    """Whether one of the CAs signed it."""
    for ca in bundle:
        with contextlib.suppress(ValueError, InvalidSignature):
            certificate.verify_directly_issued_by(ca)
            return True
    return False


def test_an_empty_cluster_gets_all_three() -> None:
    cluster = Cluster()
    authority, reasons = cluster.settle(NOW)
    assert reasons == [
        "a CA was made",
        "the CA was published",
        "the exporters' certificate was issued: there was none",
    ]
    assert {name: item["kind"] for name, item in cluster.items.items()} == {
        "flow-aggregator-ca-tls": "Secret",
        "flow-aggregator-ca": "ConfigMap",
        "flow-aggregator-client-tls": "Secret",
    }
    assert {item["metadata"]["namespace"] for item in cluster.items.values()} == {NAMES.namespace}
    assert cluster.items["flow-aggregator-client-tls"]["type"] == "kubernetes.io/tls"
    assert cluster.bundle == [authority.signing.certificate]
    assert trusted(cluster.client, cluster.bundle)
    ssl.create_default_context(cadata=authority.bundle)


def test_what_is_good_stays(cluster: Cluster) -> None:
    before = dict(cluster.items)
    for now in (NOW, NOW + DAY, NOW + VALIDITY - RENEW - DAY):
        assert cluster.settle(now)[1] == []
    assert cluster.items == before


@pytest.mark.parametrize("name", ["flow-aggregator-ca", "flow-aggregator-client-tls"])
def test_deleted_objects_are_restored(cluster: Cluster, name: str) -> None:
    authority, _ = cluster.settle(NOW)
    del cluster.items[name]
    again, reasons = cluster.settle(NOW)
    assert again.bundle == authority.bundle
    assert len(reasons) == 1
    assert trusted(cluster.client, cluster.bundle)


def test_a_deleted_ca_is_replaced_and_all_that_it_signed(cluster: Cluster) -> None:
    before = cluster.client
    del cluster.items[NAMES.ca_secret]
    _, reasons = cluster.settle(NOW + DAY)
    assert reasons[0] == "a CA was made"
    assert not trusted(before, cluster.bundle)
    assert trusted(cluster.client, cluster.bundle)


RSA_KEY = "an RSA key"
"""What stands for one: names of tests are the same in all processes that run them."""


def rsa_key() -> str:
    key = rsa.generate_private_key(65537, 2048)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


@pytest.mark.parametrize(
    ("name", "key", "text", "reason"),
    [
        (NAMES.ca_secret, "tls.crt", "nonsense", "tls.crt was not a certificate"),
        (NAMES.ca_secret, "tls.key", "nonsense", "tls.key was not a key"),
        (NAMES.ca_secret, "tls.key", RSA_KEY, "tls.key was not the EC key of tls.crt"),
        (NAMES.client_secret, "tls.crt", "nonsense", "tls.crt was not a certificate"),
        (NAMES.client_secret, "tls.key", RSA_KEY, "not the EC key"),
    ],
)
def test_broken_objects_are_restored(
    cluster: Cluster, name: str, key: str, text: str, reason: str
) -> None:
    cluster.set(name, key, rsa_key() if text == RSA_KEY else text)
    _, reasons = cluster.settle(NOW)
    assert reason in reasons[0]
    assert trusted(cluster.client, cluster.bundle)
    assert cluster.settle(NOW)[1] == []


@pytest.mark.parametrize("name", [NAMES.ca_secret, NAMES.client_secret])
@pytest.mark.parametrize("key", ["tls.crt", "tls.key"])
def test_objects_with_any_byte_damaged_are_restored_or_good(
    cluster: Cluster, name: str, key: str
) -> None:
    """The library reads parts of a certificate late, and says in many ways that it cannot."""
    good = cluster.text(name, key)
    head, *lines, tail = good.splitlines()
    der = base64.b64decode("".join(lines))
    for at in range(len(der)):
        damaged = der[:at] + bytes([der[at] ^ 1]) + der[at + 1 :]
        cluster.set(name, key, f"{head}\n{base64.encodebytes(damaged).decode()}{tail}\n")
        cluster.settle(NOW)
        assert trusted(cluster.client, cluster.bundle)


@pytest.mark.parametrize("name", [NAMES.ca_secret, NAMES.client_secret, NAMES.ca_config_map])
@pytest.mark.parametrize("data", [None, {}, {"tls.crt": "%%%", "ca.crt": ""}, []])
def test_objects_of_any_content_are_restored(cluster: Cluster, name: str, data: Any) -> None:
    cluster.items[name]["data"] = data
    cluster.settle(NOW)
    assert trusted(cluster.client, cluster.bundle)


def test_a_certificate_in_the_cas_place_is_no_ca(cluster: Cluster) -> None:
    wrong = issue_client(issue_ca(now=NOW), "x", now=NOW)
    cluster.set(NAMES.ca_secret, "tls.crt", wrong.certificate_pem().decode())
    cluster.set(NAMES.ca_secret, "tls.key", wrong.key_pem().decode())
    assert "tls.crt is not a CA's" in cluster.settle(NOW)[1][0]


def test_a_servers_certificate_is_not_for_exporters(cluster: Cluster) -> None:
    authority, _ = cluster.settle(NOW)
    wrong = issue_server(authority.signing, ["x"], now=NOW)
    cluster.set(NAMES.client_secret, "tls.crt", wrong.certificate_pem().decode())
    cluster.set(NAMES.client_secret, "tls.key", wrong.key_pem().decode())
    assert cluster.settle(NOW)[1] == [
        "the exporters' certificate was issued: it is not for clients"
    ]


def test_a_bundle_that_somebody_changed_is_published_anew(cluster: Cluster) -> None:
    authority, _ = cluster.settle(NOW)
    cluster.items[NAMES.ca_config_map]["data"]["ca.crt"] = "something else"
    assert cluster.settle(NOW)[1] == ["the CA was published anew"]
    assert cluster.items[NAMES.ca_config_map]["data"]["ca.crt"] == authority.bundle


def test_labels_and_types_of_others_stay(cluster: Cluster) -> None:
    item = cluster.items[NAMES.client_secret]
    item["type"] = "Opaque"
    item["metadata"]["labels"] = {"team": "net"}
    item["data"] = {}
    cluster.settle(NOW)
    item = cluster.items[NAMES.client_secret]
    assert item["type"] == "Opaque"
    assert item["metadata"]["labels"] == {"team": "net"}


def test_a_ca_is_replaced_without_anybody_meeting_a_stranger(cluster: Cluster) -> None:
    """Walk through two years: whoever reads within the hour trusts whoever shows a certificate."""
    late = timedelta(minutes=59)
    seen: list[tuple[datetime, list[x509.Certificate], x509.Certificate, x509.Certificate]] = []
    server: Issued | None = None
    now = changed = NOW
    steps = []
    while now < NOW + 2 * VALIDITY:
        authority, reasons = cluster.settle(now)
        steps += reasons
        server = renewed_server(server, authority.signing, ["s"], now)
        for certificate in (server.certificate, cluster.client):
            assert certificate.not_valid_after_utc > now + DAY
        seen.append((now, cluster.bundle, cluster.client, server.certificate))
        changed = now if reasons else changed
        now += timedelta(minutes=20) if now - changed < timedelta(hours=3) else DAY
    assert sum("the next CA signs" in step for step in steps) == 2
    assert sum("the CA before has ended" in step for step in steps) == 2
    for at, (when, bundle, client, _) in enumerate(seen):
        for later, other_bundle, _, other_server in seen[at:]:
            if later - when <= late:  # an exporter that read a while ago, and the server now
                assert trusted(other_server, bundle)
                assert trusted(client, other_bundle)


def test_the_next_ca_waits_until_it_was_read(cluster: Cluster) -> None:
    old = cluster.bundle
    begin = NOW + VALIDITY - RENEW
    assert cluster.settle(begin)[1] == ["the next CA was made", "the CA was published anew"]
    assert cluster.bundle[0] == old[0]
    assert len(cluster.bundle) == 2
    following = cluster.bundle[1]
    assert cluster.settle(begin + PUBLISHED - timedelta(seconds=1))[1] == []
    assert cluster.settle(begin + PUBLISHED)[1][0] == "the next CA signs from now on"
    assert cluster.bundle == [following, old[0]]
    cluster.client.verify_directly_issued_by(following)
    assert cluster.settle(NOW + VALIDITY)[1] == [
        "the CA before has ended",
        "the CA was published anew",
    ]
    assert cluster.bundle == [following]


def test_the_next_ca_does_not_sign_before_anybody_could_read_it(cluster: Cluster) -> None:
    """Its publication failed, or the aggregator was away between the two writes."""
    later = NOW + VALIDITY - RENEW
    step = decide(cluster.found(), NAMES, later)
    assert isinstance(step, NextWrite)
    assert step.reason == "the next CA was made"
    cluster.write(step)
    known = cluster.bundle
    later += PUBLISHED + DAY
    authority, reasons = cluster.settle(later)
    assert reasons == [
        "the next CA was made anew: it was not published",
        "the CA was published anew",
    ]
    assert trusted(cluster.client, known)
    assert authority.signing.certificate in known
    assert cluster.settle(later + PUBLISHED - timedelta(seconds=1))[1] == []
    assert cluster.settle(later + PUBLISHED)[1][0] == "the next CA signs from now on"


def test_a_ca_that_ended_unnoticed_is_replaced_at_once(cluster: Cluster) -> None:
    authority, reasons = cluster.settle(NOW + VALIDITY + DAY)
    assert reasons[0].startswith("the CA was replaced: it ended at ")
    assert cluster.bundle == [authority.signing.certificate]
    assert trusted(cluster.client, cluster.bundle)


def in_use(cluster: Cluster, server: Issued, now: datetime) -> None:
    """Assert that all that is shown is valid now, and from a CA that is."""
    signing = cluster.bundle[0]
    for certificate in (cluster.client, server.certificate):
        certificate.verify_directly_issued_by(signing)
        assert certificate.not_valid_before_utc <= now < certificate.not_valid_after_utc
    assert signing.not_valid_before_utc <= now < signing.not_valid_after_utc


def test_what_was_made_by_a_clock_that_was_ahead_is_replaced() -> None:
    cluster = Cluster()
    ahead = NOW + 200 * DAY
    authority, _ = cluster.settle(ahead)
    server = renewed_server(None, authority.signing, ["s"], ahead)
    before = cluster.bundle
    authority, reasons = cluster.settle(NOW)
    assert reasons[0].startswith("the CA was replaced: it begins only at 2027-06-09 08:00:00")
    in_use(cluster, renewed_server(server, authority.signing, ["s"], NOW), NOW)
    assert cluster.bundle[1:] == before  # if it is our clock that is wrong, others have these
    assert cluster.settle(ahead)[1] == []  # nor do the two clocks fight over it


def test_certificates_of_a_clock_that_was_ahead_are_replaced(cluster: Cluster) -> None:
    ahead = NOW + 2 * DAY
    del cluster.items[NAMES.client_secret]
    authority, _ = cluster.settle(ahead)
    server = renewed_server(None, authority.signing, ["s"], ahead)
    assert cluster.settle(NOW)[1] == ["the exporters' certificate was issued: it was due"]
    in_use(cluster, renewed_server(server, authority.signing, ["s"], NOW), NOW)


def test_a_next_ca_of_a_clock_that_was_ahead_never_signs(cluster: Cluster) -> None:
    begin = NOW + VALIDITY - RENEW
    cluster.settle(begin + 80 * DAY)
    assert cluster.settle(begin + DAY)[1] == [
        "the next CA was dropped: it begins only at 2027-11-11 08:00:00+00:00, as of another clock",
        "the next CA was made",
        "the CA was published anew",
    ]
    now = begin + DAY + PUBLISHED
    authority, reasons = cluster.settle(now)
    assert reasons[0] == "the next CA signs from now on"
    in_use(cluster, renewed_server(None, authority.signing, ["s"], now), now)


def test_what_is_broken_in_the_middle_of_a_change_begins_anew(cluster: Cluster) -> None:
    begin = NOW + VALIDITY - RENEW
    cluster.settle(begin)
    cluster.set(NAMES.ca_secret, "next.key", "nonsense")
    assert cluster.settle(begin + DAY)[1][0] == "the next CA was made"
    cluster.settle(begin + 2 * DAY)
    cluster.set(NAMES.ca_secret, "previous.crt", "nonsense")
    cluster.settle(begin + 2 * DAY)
    assert len(cluster.bundle) == 1


def test_replicas_agree() -> None:
    """Both see an empty cluster; who loses a race reads again."""
    cluster = Cluster()
    seen = [cluster.found(), cluster.found()]
    steps = [decide(found, NAMES, NOW) for found in seen]
    assert isinstance(steps[0], NextWrite)
    assert isinstance(steps[1], NextWrite)
    assert cluster.write(steps[0])
    assert not cluster.write(steps[1])
    assert cluster.settle(NOW)[0].bundle == cluster.settle(NOW)[0].bundle
    assert len(cluster.bundle) == 1


def test_a_server_keeps_its_certificate_until_it_is_due(cluster: Cluster) -> None:
    authority, _ = cluster.settle(NOW)
    first = renewed_server(None, authority.signing, ["flow-aggregator.x.svc", "10.0.0.1"], NOW)
    assert renewed_server(first, authority.signing, ["s"], NOW + DAY) is first
    names = first.certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert names.value.get_values_for_type(x509.DNSName) == ["flow-aggregator.x.svc"]
    other = issue_ca("other", now=NOW)
    again = renewed_server(first, other, ["s"], NOW)
    again.certificate.verify_directly_issued_by(other.certificate)
