"""Texts that are too long, too many, or not what they seem."""

import json
import os
import random
from pathlib import Path
from threading import Event
from typing import Any

from benchmarks.attacks import ATTACKER, Findings, Target, attack
from benchmarks.peer import Records, connect, context
from flowvis.fields import EndReason
from flowvis.transport.certificates import issue_client, load_ca

TEXT_BYTES = 16_000
LABEL_BYTES = 70_000
HOSTILE = b"\x0a\x60"  # 10.96
ODD = "\x1b[2J\x1b]0;owned\x07\n2026-01-01T00:00:00Z ERROR forged\r\u202e\x00\x9b31m"

_TEXTS = ("sourcePodName", "sourceNodeName", "egressNetworkPolicyName")
_LABELLED = {
    "sourcePodName": "labelled",
    "sourcePodNamespace": "hostile",
    "sourceNodeName": "node-1",
}


def _labelled_pod(path: Path) -> dict[str, Any]:
    labels = {f"team.example.com/{n:04d}": "x" * 63 for n in range(LABEL_BYTES // 88)}
    metadata = {"name": "labelled", "namespace": "hostile", "uid": "1", "labels": labels}
    status = {"phase": "Running", "podIP": "10.96.0.1", "podIPs": [{"ip": "10.96.0.1"}]}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {"nodeName": "node-1", "containers": []},
        "status": status,
    }
    file = path / "inventory.json"
    file.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": [pod]}))
    return {"inventory": {"files": [str(file)]}, "recordContents": {"podLabels": True}}


@attack("pod-labels", prepare=_labelled_pod)
def pod_labels(target: Target, over: Event) -> Findings:
    """A Pod with 70 kB of labels whose connections are reported all the time."""
    with connect(target.port, context(target.directory), ATTACKER) as session:
        records = Records(domain=2)
        session.sendall(records.templates())
        count = 0
        while not over.wait(0.05):
            port = 1024 + count % 60_000
            messages = records.messages(HOSTILE, [1], sourceTransportPort=port, **_LABELLED)
            session.sendall(b"".join(messages))
            count += 1
    return {"records": count}


@attack("random-texts")
def random_texts(target: Target, over: Event) -> Findings:
    """One session whose connections, all open, have texts of 16 kB of their own."""
    tls = context(target.directory)
    texts = {name: chr(97 + at) * TEXT_BYTES for at, name in enumerate(_TEXTS)}
    made = Records(domain=3)
    templates = made.templates()
    live = {"flowEndReason": EndReason.ACTIVE}
    message = bytearray(b"".join(made.messages(HOSTILE, [2], **live, **texts)))
    client = message.index(HOSTILE) + len(HOSTILE)
    places = [message.index(text.encode()) for text in texts.values()]
    sent = 0
    while not over.is_set():
        try:
            with connect(target.port, tls, ATTACKER, patience_s=2) as session:
                session.sendall(templates)
                while not over.is_set():
                    for place in places:
                        message[place : place + 16] = random.randbytes(8).hex().encode()
                    message[client : client + 2] = (sent & 0xFFFF).to_bytes(2)
                    session.sendall(message)
                    sent += 1
        except OSError:
            over.wait(0.05)
    return {"records": sent, "texts_mb": round(sent * len(places) * TEXT_BYTES / 1e6)}


def _nothing_forged(log: Path) -> bool:
    """Whether no line of a log is a peer's, and none has a control character."""
    text = log.read_text(errors="surrogateescape")
    forged = any(line.startswith("2026-01-01T00:00:00Z ERROR forged") for line in text.split("\n"))
    return not forged and not any(ord(sign) < 32 and sign != "\n" for sign in text)


@attack("control-characters")
def control_characters(target: Target, over: Event) -> Findings:
    """Names with escape sequences and line ends, in records and in a client's certificate."""
    issue_client(load_ca(target.directory), ODD[:60]).write(target.directory, "odd")
    tls = context(target.directory, "odd")
    count = 0
    while not over.wait(0.1):
        try:
            with connect(target.port, tls, ATTACKER) as session:
                records = Records(domain=4)
                session.sendall(records.templates())
                names = {name: ODD + str(count) for name in _TEXTS}
                session.sendall(b"".join(records.messages(HOSTILE, [3], **names)))
                session.sendall(os.urandom(64))  # ends the session, and has it named in the log
        except OSError:
            pass
        count += 1
    return {"sessions": count, "held": _nothing_forged(target.log)}
