"""Whether a rule's choices take an end and a port, with the part that decides and why.

The same questions as `policies.generation` asks of classes, one at a time and with reasons.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from ipaddress import ip_address

from flowvis.batch import V4_MAPPED, address_text
from flowvis.policies.explanation.words import peer_words, ports_words, protocol_words
from flowvis.policies.generation import Member
from flowvis.policies.model import (
    AddressBlock,
    Nodes,
    Peer,
    Pods,
    Ports,
    Relation,
    Rule,
    Unknowable,
)
from flowvis.policies.objects import Labels, Snapshot
from flowvis.policies.ports import Answer
from flowvis.policies.selectors import Requirement

MAX_CHECKS = 50_000  # a second: whoever may write policies decides how many there are


class Part(Enum):
    """What of a rule does not match, or is in doubt; of an end the later is the closer miss."""

    POD = "pod"
    ADDRESS = "address"
    NODE = "node"
    NAMESPACE = "namespace"
    ACCOUNT = "serviceAccount"
    LABELS = "labels"
    PROTOCOL = "protocol"
    PORT = "port"
    PEER = "peer"
    """Nobody is selected at all, as by a group that does not exist."""
    DOUBT = "doubt"
    """What the objects do not tell."""


_CLOSER = list(Part)


@dataclass(frozen=True, slots=True)
class End:
    """One end of a connection: an address of 16 bytes and, where it is a Pod's, the Pod."""

    address: bytes
    member: Member | None = None
    name: str = ""
    """namespace/name of the Pod."""
    node: str = ""
    """The name of the node that the Pod runs on; of what is no Pod, the node that it is known to be
    of, beside those that have its address."""
    gone: bool = False
    """Whether it was a Pod of which nothing is known any more, but the name if it has one."""

    def __str__(self) -> str:
        return self.name or address_text(self.address)

    @property
    def namespace(self) -> str:
        """The Pod's."""
        return self.name.partition("/")[0]

    @property
    def labels(self) -> dict[str, str]:
        """The Pod's."""
        return dict(self.member.labels) if self.member else {}


@dataclass(frozen=True, slots=True)
class Service:
    """What is called: protocol number and destination port, at an end."""

    protocol: int
    port: int
    destination: End

    def __str__(self) -> str:
        return f"{protocol_words(self.protocol)} {self.port}"


@dataclass(frozen=True, slots=True)
class Check:
    """Whether one choice of a rule takes an end or a port."""

    what: str
    """The choice, in words."""
    answer: Answer
    part: Part | None = None
    """What does not match or is in doubt; None where it matches."""
    why: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Whether a rule matches, and what of it does not."""

    answer: Answer
    part: Part | None
    why: str
    peers: tuple[Check, ...] | None
    """None: everybody."""
    ports: tuple[Check, ...] | None
    """None: every port."""


class TooManyChecks(RuntimeError):
    """Rules have more choices than one explanation may look at."""


class Checks:
    """Asks a snapshot's choices of ends and ports, `MAX_CHECKS` of them."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._left = MAX_CHECKS
        self.nodes = snapshot.node_addresses()
        """The node that has each address of one."""

    def rule(self, rule: Rule, subject: End, peer: End, called: Service) -> Outcome:
        """Return whether a rule that applies to `subject` matches a connection with `peer`."""
        choices = None if rule.peers is None else tuple(self._snapshot.expand(rule.peers))
        peers = None if choices is None else tuple(self.peer(c, peer, subject) for c in choices)
        entries = rule.ports or ()
        ports = None if rule.ports is None else tuple(self.port(p, called) for p in entries)
        fits = True if peers is None else any_of(check.answer for check in peers)
        serves = True if ports is None else any_of(check.answer for check in ports)
        answer = both(fits, serves)
        if rule.names_of_pods and ports is not None and peers is not None and choices is not None:
            as_pod = any_of(c.answer for c, p in zip(peers, choices, strict=True) if _is_pods(p))
            named, numbered = (
                any_of(c.answer for c, p in zip(ports, entries, strict=True) if bool(p.name) is own)
                for own in (True, False)
            )
            answer = any_of((both(fits, numbered), both(as_pod, named)))
        if answer:
            return Outcome(answer, None, "", peers, ports)
        part, why = _reason(answer, (fits, peers), (serves, ports))
        return Outcome(answer, part, why, peers, ports)

    def peer(self, choice: Peer, end: End, subject: End | None = None) -> Check:
        """Return whether an end is one of a choice; without a subject but for the relation."""
        self._count()
        what = peer_words(choice)
        match choice:
            case Pods():
                part, why = self._pods(choice, end, subject)
            case AddressBlock():
                part, why = _in_block(choice, end.address)
            case Nodes():
                part, why = self._node(choice, end)
            case Unknowable(_, unrecognized):
                doubt = "this part is not understood" if unrecognized else "no object tells this"
                return Check(what, None, Part.DOUBT, f"{what}: {doubt}")
            case _:
                raise TypeError(f"{what} is to be expanded first")
        return _check(what, part, why)

    def port(self, ports: Ports, called: Service) -> Check:
        """Return whether an entry of ports has the port that is called."""
        self._count()
        what = ports_words(ports)
        part, why = _named(ports, called) if ports.name else _numbered(ports, called)
        if part is None and ports.unknowable:
            return Check(what, None, Part.DOUBT, f"no record tells {ports.unknowable}")
        return _check(what, part, why)

    def node_of(self, end: End) -> str:
        """Return the node that an end is of; "" where it is a Pod or no node's."""
        return "" if end.member else self.nodes.get(end.address, end.node)

    def _count(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise TooManyChecks(
                f"the policies have more than {MAX_CHECKS} peers and ports to look at for this Pod"
            )

    def _pods(self, choice: Pods, end: End, subject: End | None) -> tuple[Part | None, str]:
        member = end.member
        if member is None and not (end.gone and end.name):
            unknown = Part.DOUBT, f"which Pod had {end} then is not known any more"
            return unknown if end.gone else (Part.POD, f"{end} is no Pod")
        namespace = end.namespace if member is None else member.namespace
        why = _namespace(choice, namespace, self._snapshot.labels_of(namespace))
        if not why and choice.relation is not None and subject and subject.member:
            why = self._unrelated(choice.relation, subject.member.namespace, namespace)
        if why:
            return Part.NAMESPACE, why
        if member is None:
            if not choice.account and not choice.pods.requirements:
                return None, ""
            return Part.DOUBT, f"{end} is gone, and its labels are not known any more"
        if choice.account not in {"", member.account}:
            return Part.ACCOUNT, f"its service account is {member.account or 'not known'}"
        why = _labels(choice.pods.requirements, dict(member.labels), "it")
        return (Part.LABELS, why) if why else (None, "")

    def _unrelated(self, relation: Relation, one: str, other: str) -> str:
        """Say why two namespaces are not in a relation; "" where they are."""
        if not relation.keys:
            return "" if one == other else f"it is in namespace {other}, not in {one}"
        mine, theirs = self._snapshot.labels_of(one), self._snapshot.labels_of(other)
        for key in relation.keys:
            for name, labels in ((one, mine), (other, theirs)):
                if key not in labels:
                    return f"namespace {name} has no label {key}"
        differing = [key for key in relation.keys if mine[key] != theirs[key]]
        if relation.same and differing:
            key = differing[0]
            return f"label {key} of namespace {one} is {mine[key]}, of {other} {theirs[key]}"
        if not relation.same and not differing:
            return f"namespaces {one} and {other} have the same {', '.join(relation.keys)}"
        return ""

    def _node(self, choice: Nodes, end: End) -> tuple[Part | None, str]:
        name = None if end.member else self.nodes.get(end.address)
        if name is None:
            return Part.NODE, f"{end} is no node's address"
        node = self._snapshot.nodes[name]
        if not choice.every and end.address not in node.antrea:
            return Part.NODE, f"{end} is not the address that Antrea takes node {name} by"
        why = _labels(choice.nodes.requirements, node.labels, f"node {name}")
        return (Part.NODE, why) if why else (None, "")


def any_of(answers: Iterable[Answer]) -> Answer:
    """Whether any is true; not to be known where none is for certain and one is in doubt."""
    found: Answer = False
    for answer in answers:
        if answer:
            return True
        found = None if answer is None else found
    return found


def both(one: Answer, other: Answer) -> Answer:
    """Whether both are true."""
    return False if one is False or other is False else None if None in (one, other) else True


def closest(checks: Iterable[Check]) -> Check | None:
    """Return the one that misses by least: of those in doubt the first, else by its part."""
    return max(checks, key=lambda check: _CLOSER.index(check.part or Part.DOUBT), default=None)


def _reason(
    answer: Answer,
    peers: tuple[Answer, tuple[Check, ...] | None],
    ports: tuple[Answer, tuple[Check, ...] | None],
) -> tuple[Part, str]:
    """Return what of a rule does not match, peers first, or what leaves it in doubt."""
    for fits, checks in (peers, ports):
        if fits is True or (fits is None and answer is False):
            continue
        check = closest(checks or ())
        if check is None or check.part is None:
            return Part.PEER, "it selects nobody"
        others = len(checks or ()) - 1
        nor = "the other one" if others == 1 else f"any of {others} others"
        more = f"; nor {nor}" if others > 0 else ""
        return check.part, check.why if answer is None else f"{check.what}: {check.why}{more}"
    return Part.PORT, "only Pods that are selected as Pods have ports with names"


def _check(what: str, part: Part | None, why: str) -> Check:
    return Check(what, None if part is Part.DOUBT else part is None, part, why)


def _is_pods(peer: Peer) -> bool:
    """Whether a choice selects Pods as such."""
    return peer.pods if isinstance(peer, Unknowable) else isinstance(peer, Pods)


def _namespace(choice: Pods, namespace: str, labels: Labels) -> str:
    """Say why a namespace is not one of a choice; "" where it is."""
    if choice.namespace is None:
        return _labels(choice.namespaces.requirements, labels, f"namespace {namespace}")
    return "" if choice.namespace == namespace else f"it is in namespace {namespace}"


def _labels(requirements: Iterable[Requirement], labels: Mapping[str, str], whose: str) -> str:
    """Say which label is not as required, the first one; "" where all are."""
    for requirement in requirements:
        if not requirement.holds(labels):
            key = requirement.key
            value = labels.get(key)
            return f"{whose} has no label {key}" if value is None else f"{whose} has {key}={value}"
    return ""


def _in_block(block: AddressBlock, address: bytes) -> tuple[Part | None, str]:
    ip = ip_address(address[12:] if address.startswith(V4_MAPPED) else address)
    if ip not in block.network:
        return Part.ADDRESS, f"{ip} is not in it"
    for part in sorted(block.parts, key=str):
        if ip in part:
            return Part.ADDRESS, f"{ip} is in its exception {part}"
    return None, ""


def _numbered(ports: Ports, called: Service) -> tuple[Part | None, str]:
    if ports.protocol not in {None, called.protocol}:
        return Part.PROTOCOL, f"not {protocol_words(called.protocol)}"
    return (None, "") if ports.low <= called.port <= ports.high else (Part.PORT, f"not {called}")


def _named(ports: Ports, called: Service) -> tuple[Part | None, str]:
    """The first container that has a name has it."""
    member = called.destination.member
    if called.destination.gone:
        return Part.DOUBT, f"{called.destination} is gone, and its ports are not known any more"
    for own in member.ports if member else ():
        if own.name == ports.name and ports.protocol in {None, own.protocol}:
            if (own.protocol, own.number) == (called.protocol, called.port):
                return None, ""
            it = f"{protocol_words(own.protocol)} {own.number}"
            return Part.PORT, f"it is {it} of {called.destination}, not {called}"
    return Part.PORT, f"{called.destination} has none"
