"""The certificates of a cluster: what is to be written next, given what is there and the time.

Objects, as Antrea's aggregator names them: a Secret with the CA, which replicas share; a ConfigMap
with `ca.crt` for exporters; a Secret with the exporters' certificate. The API server's resource
versions make replicas agree: who loses a race reads again, and finds nothing left to do.

A CA is replaced in two steps, so that nobody ever meets a certificate from a CA that it does not
know yet: the next one is published beside the present one, and signs only when everybody has had
time to read it. The one before stays trusted while certificates from it may be in use.
"""

import base64
import binascii
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeVar

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import ExtendedKeyUsageOID, ObjectIdentifier

from flowvis.transport.certificates import (
    SKEW,
    VALIDITY,
    Issued,
    is_issued_by,
    issue_ca,
    issue_client,
    issue_server,
    read_certificate,
    read_key,
)

Object = dict[str, Any]
T = TypeVar("T")

RENEW = timedelta(days=90)
"""What is left when a certificate is replaced: time enough to notice that it was not."""
PUBLISHED = timedelta(hours=1)
"""From a CA's publication to its first signature; kubelets bring a change within two minutes."""
GAIN = timedelta(days=1)
"""A certificate ends with its CA: it is not replaced for less than this."""

CLIENT_NAME = "flow-exporter"
BUNDLE, CERTIFICATE, KEY = "ca.crt", "tls.crt", "tls.key"
NEXT_CERTIFICATE, NEXT_KEY, PREVIOUS = "next.crt", "next.key", "previous.crt"


@dataclass(frozen=True)
class Names:
    """Where the objects are."""

    namespace: str = "flow-aggregator"
    ca_secret: str = "flow-aggregator-ca-tls"  # noqa: S105  a name
    ca_config_map: str = "flow-aggregator-ca"
    client_secret: str = "flow-aggregator-client-tls"  # noqa: S105  a name


@dataclass(frozen=True)
class Found:
    """The objects as the API has them; None where there is none."""

    ca: Object | None = None
    published: Object | None = None
    client: Object | None = None


@dataclass(frozen=True)
class Authority:
    """The CA that signs, and all CAs that are trusted (PEM)."""

    signing: Issued
    bundle: str


@dataclass(frozen=True)
class NextWrite:
    """An object to create, or to replace where it has a resourceVersion, and why."""

    item: Object
    reason: str

    @property
    def creates(self) -> bool:
        """Whether the object is new."""
        return "resourceVersion" not in self.item["metadata"]


def decide(found: Found, names: Names, now: datetime) -> NextWrite | Authority:
    """Return the next object to write, or the authority when all are as they should be."""
    try:
        state = _State.read(found.ca)
    except ValueError as error:
        fresh = _State(_new_ca(now))
        reason = f"the CA was replaced: {error}" if found.ca else "a CA was made"
        return NextWrite(fresh.secret(found.ca, names), reason)
    published = _data(found.published).get(BUNDLE)
    moved, reason = _corrected(state, now)
    if moved is state:
        moved, reason = _moved(state, now, str(published or ""))
    if moved is not state:
        return NextWrite(moved.secret(found.ca, names), reason)
    authority = Authority(state.signing, state.bundle)
    if published != state.bundle:
        reason = "the CA was published" + ("" if found.published is None else " anew")
        return NextWrite(_config_map(found.published, names, state.bundle), reason)
    problem = _client_problem(found.client, state.signing, now)
    if problem:
        client = issue_client(state.signing, CLIENT_NAME, now=now)
        secret = _secret(found.client, names.namespace, names.client_secret, _pair(client))
        return NextWrite(secret, f"the exporters' certificate was issued: {problem}")
    return authority


def renewed_server(
    issued: Issued | None, signing: Issued, names: Sequence[str], now: datetime
) -> Issued:
    """Return the server's certificate: the one that it has, or a new one where that is due."""
    if issued is None or _due(issued.certificate, signing, now):
        return issue_server(signing, names, now=now)
    return issued


@dataclass(frozen=True)
class _State:
    """What the CA's Secret says."""

    signing: Issued
    next: Issued | None = None
    previous: x509.Certificate | None = None

    @classmethod
    def read(cls, secret: Object | None) -> "_State":
        """Raise ValueError with what is wrong where there is no usable CA."""
        texts = _texts(secret)
        signing = _issued(texts, CERTIFICATE, KEY)
        if not _is_ca(signing.certificate):
            raise ValueError(f"{CERTIFICATE} is not a CA's")
        following = previous = None
        if NEXT_CERTIFICATE in texts:
            following = _optional(lambda: _issued(texts, NEXT_CERTIFICATE, NEXT_KEY))
        if PREVIOUS in texts:
            previous = _optional(lambda: _certificate(texts[PREVIOUS], PREVIOUS))
        return cls(signing, following, previous)

    @property
    def bundle(self) -> str:
        """All trusted CAs, the one that signs first."""
        found = [self.signing.certificate]
        if self.next is not None:
            found.append(self.next.certificate)
        if self.previous is not None:
            found.append(self.previous)
        return "".join(map(_pem, found))

    def secret(self, before: Object | None, names: Names) -> Object:
        """Return the Secret that says this."""
        data = _pair(self.signing)
        if self.next is not None:
            pair = _pair(self.next)
            data |= {NEXT_CERTIFICATE: pair[CERTIFICATE], NEXT_KEY: pair[KEY]}
        if self.previous is not None:
            data[PREVIOUS] = _pem(self.previous)
        return _secret(before, names.namespace, names.ca_secret, data)


def _corrected(state: _State, now: datetime) -> tuple[_State, str]:
    """Return the CA without what a clock that was ahead has made, and in words; else the same."""
    words = "it begins only at {}, as of another clock"
    signing = state.signing.certificate
    if _is_ahead(signing, now):
        # If it is our clock that is wrong, it is in use: so it stays trusted.
        reason = f"the CA was replaced: {words.format(signing.not_valid_before_utc)}"
        return _State(_new_ca(now), None, signing), reason
    if state.next is not None and _is_ahead(state.next.certificate, now):
        begins = state.next.certificate.not_valid_before_utc
        reason = f"the next CA was dropped: {words.format(begins)}"
        return _State(state.signing, None, state.previous), reason
    return state, ""


def _moved(state: _State, now: datetime, published: str) -> tuple[_State, str]:
    """Return where time has brought the CA, and in words; the same state if nowhere.

    `published` are the CAs that exporters can read.
    """
    ends = state.signing.certificate.not_valid_after_utc
    if state.next is not None:
        ready = state.next.certificate.not_valid_before_utc + SKEW + PUBLISHED
        if ready <= now < ends and _pem(state.next.certificate) not in published:
            anew = _State(state.signing, _new_ca(now), state.previous)
            return anew, "the next CA was made anew: it was not published"
        if now >= ready or now >= ends:
            previous = state.signing.certificate if now < ends else None
            return _State(state.next, None, previous), "the next CA signs from now on"
    elif now >= ends:
        return _State(_new_ca(now)), f"the CA was replaced: it ended at {ends}"
    elif now >= ends - RENEW:
        following = _new_ca(now)
        return _State(state.signing, following, state.previous), "the next CA was made"
    if state.previous is not None and now >= state.previous.not_valid_after_utc:
        return _State(state.signing, state.next), "the CA before has ended"
    return state, ""


def _is_ahead(certificate: x509.Certificate, now: datetime) -> bool:
    """Whether a certificate is not valid yet, though it was made with an hour to spare."""
    return now < certificate.not_valid_before_utc


def _new_ca(now: datetime) -> Issued:
    """Make a CA whose name no other has, so that a chain is never tried with the wrong one."""
    return issue_ca(f"flow-aggregator-ca@{now.timestamp():.0f}", now=now)


def _client_problem(secret: Object | None, signing: Issued, now: datetime) -> str:
    """Return why exporters need another certificate; "" when they do not."""
    if secret is None:
        return "there was none"
    try:
        issued = _issued(_texts(secret), CERTIFICATE, KEY)
    except ValueError as error:
        return str(error)
    if not _is_for(issued.certificate, ExtendedKeyUsageOID.CLIENT_AUTH):
        return "it is not for clients"
    return "it was due" if _due(issued.certificate, signing, now) else ""


def _due(certificate: x509.Certificate, signing: Issued, now: datetime) -> bool:
    """Whether a certificate is of another CA, ahead, or near its end with a longer to be had."""
    if not is_issued_by(certificate, signing.certificate) or _is_ahead(certificate, now):
        return True
    ends = certificate.not_valid_after_utc
    gain = min(now + VALIDITY, signing.certificate.not_valid_after_utc) - ends
    return now >= ends - RENEW and gain >= GAIN


def _issued(texts: Mapping[str, bytes], certificate_key: str, key_key: str) -> Issued:
    """Read a certificate and its key; ValueError says what is wrong."""
    for name in (certificate_key, key_key):
        if name not in texts:
            raise ValueError(f"{name} was missing")
    certificate = _certificate(texts[certificate_key], certificate_key)
    try:
        key = read_key(texts[key_key])
    except ValueError as error:
        raise ValueError(f"{key_key} was not a key: {error}") from error
    if key is None or key.public_key() != certificate.public_key():
        raise ValueError(f"{key_key} was not the EC key of {certificate_key}")
    return Issued(certificate, key)


def _certificate(text: bytes, name: str) -> x509.Certificate:
    try:
        return read_certificate(text)
    except ValueError as error:
        raise ValueError(f"{name} was not a certificate: {error}") from error


def _optional(read: Callable[[], T]) -> T | None:
    """What is there for the time of a change only: without it, the change begins anew."""
    try:
        return read()
    except ValueError:
        return None


def _is_ca(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (x509.ExtensionNotFound, ValueError):
        return False


def _is_for(certificate: x509.Certificate, purpose: ObjectIdentifier) -> bool:
    try:
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage)
    except (x509.ExtensionNotFound, ValueError):
        return False
    return purpose in usage.value


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _pair(issued: Issued) -> dict[str, str]:
    return {CERTIFICATE: issued.certificate_pem().decode(), KEY: issued.key_pem().decode()}


def _data(item: Object | None) -> dict[str, Any]:
    data = (item or {}).get("data")
    return data if isinstance(data, dict) else {}


def _texts(secret: Object | None) -> dict[str, bytes]:
    """Return what a Secret holds; what is not base64 is not there."""
    texts = {}
    for name, value in _data(secret).items():
        try:
            texts[name] = base64.b64decode(str(value), validate=True)
        except (binascii.Error, ValueError):
            continue
    return texts


def _secret(before: Object | None, namespace: str, name: str, texts: Mapping[str, str]) -> Object:
    data = {key: base64.b64encode(text.encode()).decode() for key, text in texts.items()}
    kind = (before or {}).get("type", "kubernetes.io/tls")  # may not change
    return _object(before, "Secret", namespace, name) | {"type": kind, "data": data}


def _config_map(before: Object | None, names: Names, bundle: str) -> Object:
    item = _object(before, "ConfigMap", names.namespace, names.ca_config_map)
    return item | {"data": {BUNDLE: bundle}}


def _object(before: Object | None, kind: str, namespace: str, name: str) -> Object:
    """Return an object without its content; labels and the version of one that was there stay."""
    metadata = {"name": name, "namespace": namespace}
    if before is None:
        kept: Object = {"labels": {"app.kubernetes.io/part-of": "flowvis"}}
    else:
        kept = {
            key: value
            for key, value in before["metadata"].items()
            if key in {"labels", "annotations", "resourceVersion", "uid"}
        }
    return {"apiVersion": "v1", "kind": kind, "metadata": kept | metadata}
