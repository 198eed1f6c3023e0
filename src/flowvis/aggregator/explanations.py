"""Answers why: names of Pods, Services and addresses in, explanations of their connections out."""

import asyncio
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from ipaddress import ip_address
from typing import Any

import numpy as np

from flowvis.batch import V4_MAPPED, address_bytes
from flowvis.fields import PROTOCOLS, TRANSPORTS
from flowvis.inventory.index import NONE, Inventory
from flowvis.inventory.networks import address_column
from flowvis.inventory.objects import Pod, ServicePort
from flowvis.policies import Policies
from flowvis.policies.endpoints import member_of
from flowvis.policies.explanation import Answered, End, Explainer, Explanation, Service, as_dict
from flowvis.policies.explanation.document import Sees
from flowvis.policies.objects import Snapshot

MAX_ENDPOINTS = 10
"""Endpoints of a Service that are explained one by one."""
AT_ONCE = 2
"""Explanations that are worked out at once; others wait."""
MAX_PORT = 65535


class UnknownEnd(LookupError):
    """There is no Pod, Service or node of a name; the text says which."""


class NotVisible(PermissionError):
    """The flows of a namespace may not be seen by who asks."""


@dataclass(frozen=True, slots=True)
class Place:
    """An end as people name it: `namespace/name` or an address, and a port or its name."""

    text: str
    namespace: str = ""
    name: str = ""
    address: bytes = b""
    port: str = ""

    @classmethod
    def parse(cls, what: str, text: str) -> "Place":
        """Read one; ValueError says what is wrong. `what` is "source" or "destination"."""
        written = text.strip()
        host, port = written, ""
        if written.startswith("["):
            host, _, rest = written[1:].partition("]")
            port = rest.removeprefix(":")
        elif written.count(":") == 1:
            host, _, port = written.partition(":")
        if "/" in host:
            namespace, _, name = host.partition("/")
            if namespace and name and "/" not in name:
                return cls(text, namespace, name, port=port)
        else:
            try:
                address = address_bytes(host)
            except ValueError:
                address = b""
            if address and not ip_address(host).is_unspecified:
                return cls(text, address=address, port=port)
        raise ValueError(
            f"{what} {text[:80]!r}: namespace/name of a Pod"
            f"{' or a Service' if what == 'destination' else ''}, or an address"
        )


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to be explained."""

    source: Place
    destination: Place
    protocol: int = TRANSPORTS["TCP"]
    port: str = ""
    """A number or a name; also as part of the destination."""
    at_ms: int | None = None
    """None: now."""
    record: Mapping[str, Any] | None = None
    """What is stored of it: who may see that may see what it names."""

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> "Asked":
        """Ask about a stored record: as of when its connection began, which is in whole seconds."""
        return cls(
            Place.parse("source", record["sourceIP"]),
            Place.parse("destination", record["destinationIP"]),
            record["protocolIdentifier"],
            str(record["destinationTransportPort"] or ""),
            _began(record) + 999,
            record,
        )

    def pod(self, side: str) -> str:
        """Return namespace/name of the Pod that the record names on one side; "" where none."""
        if self.record is None or not self.record[f"{side}PodName"]:
            return ""
        return f"{self.record[f'{side}PodNamespace']}/{self.record[f'{side}PodName']}"

    def own_node(self, side: str) -> str:
        """Return the node that the record names at both ends, though it has no Pod at one side.

        Exporters name a node at addresses that no object has, as the gateway of its Pods.
        """
        if self.record is None or self.record[f"{side}PodName"]:
            return ""
        nodes = {str(self.record[f"{side}NodeName"]) for side in ("source", "destination")}
        return nodes.pop() if len(nodes) == 1 else ""


@dataclass(slots=True)
class _Ends:
    """What was found: pairs to explain."""

    source: End
    services: list[Service] = field(default_factory=list)
    service: str = ""
    """The Service port that was called, `namespace/name:port`."""
    more: int = 0
    notes: list[str] = field(default_factory=list)


def parse_protocol(text: str) -> int:
    """Read a protocol's name or number; ValueError if it is neither."""
    name = text.strip().lower() or "tcp"
    if name in PROTOCOLS:
        return PROTOCOLS[name]
    if name.isascii() and name.isdecimal() and int(name) < 256:
        return int(name)
    raise ValueError(f"protocol {text[:40]!r}: {', '.join(PROTOCOLS)} or a number")


class Explanations:
    """Explains connections by the inventory and the policies, as they are or were."""

    def __init__(
        self, inventory: Inventory, policies: Policies, stale: Callable[[], str] = lambda: ""
    ) -> None:
        """`stale` says what is wrong with following the objects; "" if nothing."""
        self._inventory, self._policies, self._stale = inventory, policies, stale
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._explainer = Explainer(Snapshot(), ())
        """The last one: policies change more seldom than people ask."""

    async def answer(self, asked: Asked, now_ms: int, sees: Sees) -> dict[str, Any]:
        """Return the API's document; UnknownEnd, NotVisible and ValueError say what is wrong."""
        at_ms = now_ms if asked.at_ms is None else asked.at_ms
        if asked.record is not None:
            at_ms = min(at_ms, now_ms)  # nodes' clocks differ
        elif at_ms > now_ms:
            raise ValueError(f"at {_utc(at_ms)}: that is in the future")
        known_from = self._policies.known_from_ms
        known = at_ms >= known_from
        snapshot = self._policies.as_of(max(at_ms, known_from))
        for place in (asked.source, asked.destination):
            _check_visible(place.text, place.namespace, sees)
        ends = _Ends(self._source(asked, at_ms))
        pods = self._inventory.pods.living()
        target = self._target(asked, at_ms, ends)
        if asked.record is None:
            _check_visible(asked.source.text, ends.source.namespace, sees)
            for called in ends.services:
                _check_visible(asked.destination.text, called.destination.namespace, sees)
            if target is not None:
                namespace = target.service.partition("/")[0]
                _check_visible(asked.destination.text, namespace, sees)
        async with self._turns:
            explanations = await asyncio.to_thread(self._explain, snapshot, pods, ends, target)
        past = asked.at_ms is not None
        return {
            "at": at_ms,
            "now": not past,
            "known": known,
            "knownFrom": known_from,
            "verdict": _verdict(explanations) if known else Answered.UNKNOWN.value,
            "service": ends.service or None,
            "connections": [as_dict(one, sees, asked.record) for one in explanations],
            "more": ends.more,
            "record": asked.record,
            "notes": [
                *self._notes(known=known, past=past),
                *self._changes(asked, snapshot),
                *ends.notes,
            ],
        }

    def _explain(
        self, snapshot: Snapshot, pods: Sequence[Pod], ends: _Ends, target: ServicePort | None
    ) -> list[Explanation]:
        """Find the Pods of a Service, and explain all connections. In a thread of its own."""
        if target is not None:
            self._add_endpoints(snapshot, pods, ends, target)
        self._explainer = explainer = self._explainer.after(snapshot, pods)
        return [explainer.explain(ends.source, called) for called in ends.services]

    def _notes(self, *, known: bool, past: bool) -> Iterator[str]:
        if not known:
            when = _utc(self._policies.known_from_ms)
            yield (
                f"which policies there were then is not known: it is known from {when} on, and "
                "what follows is as of that time"
            )
        if past:
            yield "labels of Pods are those of now"
        problem = self._stale()
        if problem:
            yield f"the objects may be out of date: {problem}"
        if not self._policies.active:
            yield "no policy is known at all"

    def _changes(self, asked: Asked, snapshot: Snapshot) -> Iterator[str]:
        """Say what policies did in the second in which a record's connection began."""
        if asked.record is not None:
            before = self._policies.as_of(_began(asked.record))
            if before.policies != snapshot.policies:
                yield (
                    "policies changed in the second in which the connection began, and what "
                    "follows is as of its end"
                )

    # Ends

    def _source(self, asked: Asked, at_ms: int) -> End:
        place = asked.source
        if place.port:
            raise ValueError(f"source {place.text!r}: without a port: no policy asks for it")
        if not place.name:
            return self._of_record(asked, "source", at_ms)
        pod = self._inventory.pods.named(place.namespace, place.name)
        if pod is not None:
            return self._end(pod, self._families(asked.destination))
        if self._inventory.service_ports(place.namespace, place.name) is not None:
            raise UnknownEnd(f"source {place.text}: a Service opens no connections: name a Pod")
        raise UnknownEnd(f"source {place.text}: no such Pod{self._like(place)}")

    def _target(self, asked: Asked, at_ms: int, ends: _Ends) -> ServicePort | None:
        """Note what is called in `ends`; or return the Service port whose Pods are."""
        place, port = asked.destination, asked.destination.port or asked.port
        if asked.port and place.port and asked.port != place.port:
            raise ValueError(f"port {asked.port!r}: the destination says {place.port!r}")
        if place.name:
            pod = self._inventory.pods.named(place.namespace, place.name)
            if pod is not None:
                end = self._end(pod, {_family(ends.source.address)})
                number = _port_of(pod, port, asked.protocol)
                ends.services.append(Service(asked.protocol, number, end))
                return None
            ports = self._inventory.service_ports(place.namespace, place.name)
            if ports is None:
                like = self._like(place)
                raise UnknownEnd(f"destination {place.text}: neither a Pod nor a Service{like}")
            return _service_port(place, ports, port, asked.protocol)
        number = _number(port, asked.protocol)
        called = self._called_service(place.address, number, asked.protocol)
        if called is None or asked.pod("destination"):
            end = self._of_record(asked, "destination", at_ms)
            ends.services.append(Service(asked.protocol, number, end))
            return None
        return called

    def _called_service(self, address: bytes, port: int, protocol: int) -> ServicePort | None:
        services = self._inventory.services
        (handle,) = services.find(
            address_column([address]),
            np.array([port], dtype=np.uint16),
            np.array([protocol], dtype=np.uint8),
        ).tolist()
        return None if handle == NONE else services.objects[handle]

    def _of_record(self, asked: Asked, side: str, at_ms: int) -> End:
        """Return the end at the address of one side, with what its record names there, if any."""
        place = asked.source if side == "source" else asked.destination
        end, node = self._at(place.address, at_ms, asked.pod(side)), asked.own_node(side)
        return replace(end, node=node) if node and not end.name else end

    def _at(self, address: bytes, at_ms: int, named: str) -> End:
        """Return the end at an address; `named` is the Pod that a record names there."""
        times = np.array([at_ms], dtype=np.uint64)
        index = self._inventory.pods
        found = index.find(address_column([address]), times)
        if not named and (index.of_then(found, times) != found).any():
            return End(address, gone=True)  # a Pod before the one that is known
        (handle,) = found.tolist()
        pod = None if handle == NONE else self._inventory.pods.objects[handle]
        if pod is not None and named in {"", f"{pod.namespace}/{pod.name}"}:
            return End(address, member_of(pod), f"{pod.namespace}/{pod.name}", pod.node)
        if (
            named
            and pod is None
            and self._inventory.nodes.find(address_column([address]))[0] != NONE
        ):
            return End(address, name=named)  # it shares its node's addresses
        return End(address, name=named, gone=bool(named))

    def _families(self, place: Place) -> set[int]:
        """Return the IP versions of a place's addresses."""
        if place.address:
            return {_family(place.address)}
        pod = self._inventory.pods.named(place.namespace, place.name)
        if pod is not None:
            return set(map(_family, self._addresses(pod))) or {4, 6}
        ports = self._inventory.service_ports(place.namespace, place.name) or ()
        return {_family(address) for port in ports for address in port.addresses} or {4, 6}

    def _addresses(self, pod: Pod) -> tuple[bytes, ...]:
        """Return a Pod's addresses, or those of its node that it shares."""
        node = self._inventory.node(pod.node) if pod.shares_node else None
        return pod.addresses if node is None else node.addresses

    def _end(self, pod: Pod, families: Collection[int]) -> End:
        """Return a Pod's end, at its first address of some IP versions."""
        name = f"{pod.namespace}/{pod.name}"
        addresses = self._addresses(pod)
        for address in addresses:
            if _family(address) in families:
                member = None if pod.shares_node else member_of(pod)
                return End(address, member, name, pod.node)
        versions = " or ".join(f"IPv{family}" for family in sorted(families))
        which = f"{versions} address, as the other end has" if addresses else "address yet"
        raise UnknownEnd(f"Pod {name} has no {which}")

    def _add_endpoints(
        self, snapshot: Snapshot, pods: Sequence[Pod], ends: _Ends, target: ServicePort
    ) -> None:
        """Add the Pods that a Service's port leads to, whether they are ready or not."""
        ends.service = target.service
        namespace, _, rest = target.service.partition("/")
        selected = snapshot.services.get((namespace, rest.partition(":")[0]), ())
        family = _family(ends.source.address)
        found = []
        for pod in pods:
            if pod.namespace != namespace:
                continue
            member, port = member_of(pod), _target_port(pod, target)
            labels = dict(member.labels)
            if port and any(s.select(namespace, {}, labels, member.account) for s in selected):
                with suppress(UnknownEnd):  # it has no address yet, or none of this version
                    found.append(Service(target.protocol, port, self._end(pod, {family})))
        found.sort(key=lambda called: called.destination.name)
        ends.services += found[:MAX_ENDPOINTS]
        ends.more = max(len(found) - MAX_ENDPOINTS, 0)
        if self._outside(ends.source):
            ends.notes.append(
                f"{ends.source} is explained as the Pods' client; what comes to a Service from "
                "outside of the cluster may have a node's address there (externalTrafficPolicy: "
                "Cluster), and then that is what policies see"
            )
        if not found:
            ends.notes.append(
                f"Service {target.service} leads to no Pod that is known: it has no selector, or "
                f"nothing that it selects has an IPv{family} address and that port"
            )

    def _outside(self, end: End) -> bool:
        """Whether an end is neither a Pod nor a node."""
        column = address_column([end.address])
        known = self._inventory.are_pods(column) | (self._inventory.nodes.find(column) != NONE)
        return not (end.name or end.gone or known.any())

    def _like(self, place: Place) -> str:
        """Name a Pod of the namespace that may be meant."""
        names = [n for space, n in self._inventory.pods.names() if space == place.namespace]
        if not names:
            return f" (and no Pod in namespace {place.namespace})"
        near = [name for name in names if name.startswith(place.name)]
        return f": do you mean {place.namespace}/{min(near)}?" if near else ""


def _began(record: Mapping[str, Any]) -> int:
    """When a stored connection began, or was seen where it does not say: ms of a whole second."""
    began: int = record["flowStartSeconds"] or record["flowEndSeconds"]
    return began


def _check_visible(text: str, namespace: str, sees: Sees) -> None:
    """Raise NotVisible unless the flows of a namespace may be seen; "" is none."""
    if not sees(namespace):
        raise NotVisible(f"{text}: the flows of its namespace may not be seen by you")


def _target_port(pod: Pod, target: ServicePort) -> int:
    """Return the port of a Pod that a Service's port leads to; 0 where it has none."""
    if isinstance(target.target, int):
        return target.target
    for name, protocol, port in pod.named_ports:
        if (name, protocol) == (target.target, target.protocol):
            return port
    return 0


def _service_port(
    place: Place, ports: Sequence[ServicePort], port: str, protocol: int
) -> ServicePort:
    """Return the port of a Service that is meant."""
    fitting = [one for one in ports if one.protocol == protocol]
    if port:
        fitting = [one for one in fitting if port in {str(one.port), one.service.partition(":")[2]}]
    if len(fitting) == 1:
        return fitting[0]
    names = {number: name.lower() for name, number in TRANSPORTS.items()}
    known = ", ".join(
        f"{one.service.partition(':')[2] or one.port} ({names[one.protocol]} {one.port})"
        for one in ports
    )
    wrong = f"port {port!r}: no" if port else "port is needed:"
    raise ValueError(f"{wrong} port of Service {place.namespace}/{place.name}: it has {known}")


def _port_of(pod: Pod, port: str, protocol: int) -> int:
    """Return the number of a Pod's port, which may be named."""
    named = {name: number for name, of, number in reversed(pod.named_ports) if of == protocol}
    if port in named:
        return named[port]
    try:
        return _number(port, protocol)
    except ValueError as error:
        known = ", ".join(f"{name} ({number})" for name, number in named.items() if name)
        more = f"; the Pod names {known}" if known else ""
        raise ValueError(f"{error}{more}") from None


def _number(port: str, protocol: int) -> int:
    if not port and protocol not in TRANSPORTS.values():
        return 0
    if port.isascii() and port.isdecimal() and 0 < (number := int(port[:20])) <= MAX_PORT:
        return number
    raise ValueError(
        f"port {port[:40]!r}: a number from 1 to {MAX_PORT}"
        if port
        else "port is needed, as in NAMESPACE/NAME:PORT"
    )


def _utc(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms // 1000, UTC).isoformat().replace("+00:00", "Z")


def _family(address: bytes) -> int:
    """Return the IP version of an address of 16 bytes."""
    return 4 if address.startswith(V4_MAPPED) else 6


def _verdict(explanations: Sequence[Explanation]) -> str:
    """Return the answer of all; "differs" where it depends on the endpoint, "unknown" of none."""
    found = {explanation.answered.value for explanation in explanations}
    return found.pop() if len(found) == 1 else "differs" if found else Answered.UNKNOWN.value
