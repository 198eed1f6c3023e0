"""Values that are as extreme as their types allow, in records and in certificates."""

import itertools
from threading import Event
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from benchmarks.attacks import ATTACKER, Findings, Store, Target, attack
from benchmarks.peer import Records, connect, context
from flowvis.cli.client import ControlClient
from flowvis.fields import EXPORTED
from flowvis.transport.certificates import Issued, issue_client, load_ca

HOSTILE = b"\x0a\x60"  # 10.96
_NAMES = (
    ("Count", "Id"),
    ("Seconds", "Milliseconds"),
    ("EndSeconds", "EndMilliseconds"),
    ("StartSeconds", "StartMilliseconds"),
    ("Port", "Type", "Action", "Code"),
)


def _extremes(*endings: str) -> list[dict[str, int]]:
    """All fields whose names end so, at their largest value, 0 and 1."""
    fields = [field for field in EXPORTED if field.name.endswith(endings)]
    largest = {field.name: (1 << 8 * field.kind.dtype.itemsize) - 1 for field in fields}
    return [largest, dict.fromkeys(largest, 0), dict.fromkeys(largest, 1)]


@attack("extreme-numbers", store=Store.SERVER)
def extreme_numbers(target: Target, over: Event) -> Findings:
    """Counters, times, ports and types of 0, 1 and all ones; none may cost others their place."""
    made = Records(domain=10)
    extremes = [values for endings in _NAMES for values in _extremes(*endings)]
    ports = itertools.cycle(range(1024, 60_000))
    with connect(target.port, context(target.directory), ATTACKER) as session:
        session.sendall(made.templates())
        while not over.wait(0.05):
            for values in extremes:
                chosen: dict[str, Any] = {"sourceTransportPort": next(ports)} | values
                session.sendall(b"".join(made.messages(HOSTILE, range(20), **chosen)))
    books = ControlClient(target.control).get("ledger")
    dropped = {stage["name"]: stage["dropped"] for stage in books["stages"] if stage["dropped"]}
    return {"dropped": dropped, "held": "clickhouse" not in dropped}


def _odd_names() -> list[x509.Name]:
    common = NameOID.COMMON_NAME
    return [
        x509.Name([]),
        x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "no common name")]),
        x509.Name([x509.NameAttribute(common, f"{n}") for n in range(500)]),
        x509.Name([x509.NameAttribute(common, "a\0b\x1b[2J\nERROR \u202e\U0001f600"[:64])]),
        x509.Name([x509.NameAttribute(common, "x" * 100_000, _validate=False)]),
        x509.Name([x509.RelativeDistinguishedName([
            x509.NameAttribute(common, "one"), x509.NameAttribute(NameOID.USER_ID, "two")
        ])]),
    ]  # fmt: skip


@attack("odd-certificates")
def odd_certificates(target: Target, over: Event) -> Findings:
    """Clients whose certificates the CA has signed, with names that nobody expects, and chains."""
    ca = load_ca(target.directory)
    certificates = [_with_name(ca, name) for name in _odd_names()]
    plain = issue_client(ca, "chained")
    for number, issued in enumerate(certificates):
        issued.write(target.directory, f"odd-{number}")
    plain.write(target.directory, "chained")
    chain = target.directory / "chained.crt"
    others = [issue_client(ca, f"other-{n}").certificate for n in range(60)]
    pem = serialization.Encoding.PEM
    chain.write_bytes(chain.read_bytes() + b"".join(other.public_bytes(pem) for other in others))
    names = [*(f"odd-{number}" for number in range(len(certificates))), "chained"]
    taken = refused = 0
    while not over.is_set():
        for name in names:
            made = Records(domain=11)
            try:
                with connect(target.port, context(target.directory, name), ATTACKER, 5) as session:
                    session.sendall(made.templates())
                    session.sendall(b"".join(made.messages(HOSTILE, [9])))
                    session.unwrap()
                taken += 1
            except OSError:
                refused += 1
        over.wait(0.05)
    return {"taken": taken, "refused": refused}


def _with_name(ca: Issued, name: x509.Name) -> Issued:
    """A client's certificate for any subject."""
    key = ec.generate_private_key(ec.SECP256R1())
    like = issue_client(ca, "like").certificate
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(like.issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(like.not_valid_before_utc)
        .not_valid_after(like.not_valid_after_utc)
    )
    for extension in like.extensions:
        builder = builder.add_extension(extension.value, extension.critical)
    return Issued(builder.sign(ca.key, hashes.SHA256()), key)
