"""Which records somebody wants to see: conditions on columns, all of which must hold."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Self

import numpy as np
from numpy.typing import NDArray

from flowvis.batch import Batch, address_bytes
from flowvis.fields import FLOW_TYPES, PROTOCOLS, RuleAction

Mask = NDArray[np.bool_]

DENIED = (RuleAction.DROP, RuleAction.REJECT)
VERDICTS = {
    "allowed": (RuleAction.ALLOW,),
    "dropped": (RuleAction.DROP,),
    "rejected": (RuleAction.REJECT,),
    "denied": DENIED,
    "unenforced": (RuleAction.UNENFORCED_DROP, RuleAction.UNENFORCED_REJECT),
}
"""What policies may have decided, and the rule actions that say so in either direction."""

_DIRECTIONS = ("ingressNetworkPolicy", "egressNetworkPolicy")


@dataclass(frozen=True)
class Selection:
    """Conditions; an empty one takes every record. Either side of a connection may match."""

    pod: str = ""
    namespace: str = ""
    node: str = ""
    service: str = ""
    """namespace/name:port, namespace/name or name."""
    ip: str = ""
    port: str = ""
    protocol: str = ""
    type: str = ""
    verdict: str = ""
    """What policies decided, of VERDICTS; what is denied in one direction is not allowed."""
    policy: str = ""
    """namespace/name or name of the policy that decided, in either direction."""

    @classmethod
    def parse(cls, query: Mapping[str, str]) -> Self:
        """Read the conditions from texts; ValueError names a bad one."""
        names = [field.name for field in fields(cls)]
        unknown = sorted(set(query) - set(names))
        if unknown:
            raise ValueError(f"unknown condition {unknown[0]!r}: use {', '.join(names)}")
        made = cls(**query)
        made._numbers()
        return made

    def mask(self, batch: Batch) -> Mask:
        """Which records of a batch are wanted."""
        wanted = np.ones(len(batch), dtype=bool)
        for text, names in (
            (self.pod, ("sourcePodName", "destinationPodName")),
            (self.namespace, ("sourcePodNamespace", "destinationPodNamespace")),
            (self.node, ("sourceNodeName", "destinationNodeName")),
        ):
            if text:
                wanted &= _either(_is_text(batch, name, text) for name in names)
        if self.service:
            wanted &= self._of_service(batch)
        if self.policy:
            wanted &= _either(self._of_policy(batch, direction) for direction in _DIRECTIONS)
        if self.verdict:
            wanted &= _decided(batch, VERDICTS[self.verdict])
            if self.verdict == "allowed":
                wanted &= ~_decided(batch, DENIED)
        if self.ip:
            address = np.frombuffer(address_bytes(self.ip), dtype=np.uint8)
            sides = ("sourceIP", "destinationIP", "destinationServiceIP")
            wanted &= _either((batch[name] == address).all(axis=1) for name in sides)
        numbers = self._numbers()
        if "port" in numbers:
            sides = ("sourceTransportPort", "destinationTransportPort", "destinationServicePort")
            wanted &= _either(batch[name] == numbers["port"] for name in sides)
        for name, column in (("protocol", "protocolIdentifier"), ("type", "flowType")):
            if name in numbers:
                wanted &= batch[column] == numbers[name]
        return wanted

    def _of_service(self, batch: Batch) -> Mask:
        def matches(text: str) -> bool:
            full, _, _ = text.partition(":")
            return bool(text) and self.service in {text, full, full.rpartition("/")[2]}

        return _where_text(batch, "destinationServicePortName", matches)

    def _of_policy(self, batch: Batch, direction: str) -> Mask:
        namespace, _, name = self.policy.rpartition("/")
        found = _is_text(batch, f"{direction}Name", name)
        return found & _is_text(batch, f"{direction}Namespace", namespace) if namespace else found

    def _numbers(self) -> dict[str, int]:
        """The numeric conditions; ValueError where one is none."""
        found = {}
        if self.verdict and self.verdict not in VERDICTS:
            raise ValueError(f"verdict {self.verdict!r}: use {', '.join(VERDICTS)}")
        if self.ip:
            address_bytes(self.ip)
        for what, known in (("port", {}), ("protocol", PROTOCOLS), ("type", FLOW_TYPES)):
            text = getattr(self, what).lower()
            if not text:
                continue
            if text not in known and not text.isdecimal():
                allowed = ", ".join([*known, "a number"])
                raise ValueError(f"{what} {text!r}: use {allowed}")
            found[what] = known[text] if text in known else int(text)
        return found


def _either(masks: Iterable[Mask]) -> Mask:
    return np.asarray(np.logical_or.reduce(list(masks)))


def _decided(batch: Batch, actions: Sequence[int]) -> Mask:
    return _either(np.isin(batch[f"{direction}RuleAction"], actions) for direction in _DIRECTIONS)


def _is_text(batch: Batch, name: str, text: str) -> Mask:
    return _where_text(batch, name, lambda value: value == text)


def _where_text(batch: Batch, name: str, test: Callable[[str], bool]) -> Mask:
    """Test each distinct text of a column once."""
    codes, places = np.unique(batch[name], return_inverse=True)
    passed = np.array([test(text) for text in batch.strings.texts(codes)], dtype=bool)
    return np.asarray(passed[places])
