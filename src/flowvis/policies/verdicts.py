"""Verdicts by number: as columns of text, and found once for each pair of classes."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from flowvis.batch import Column
from flowvis.native import FlowIndex
from flowvis.policies.endpoints import NONE, EndpointTable
from flowvis.policies.generation import Called, Endpoint, Generation
from flowvis.policies.model import Direction
from flowvis.policies.rulebook import EXEMPT, NOTHING, UNKNOWN, PolicyVerdict
from flowvis.strings import Strings

MAX_PAIRS = 1 << 17  # of classes, of one generation; then they are found anew
MAX_CLASSES = 1 << 19
"""That are kept when endpoints get other numbers, or while rules stay the same: with one for each
endpoint that has a number they are fewer than 2^20."""
MAX_VERDICTS = 1 << 20

NO_VERDICT, NOT_KNOWN, NOT_SUBJECT = range(3)
"""Verdicts that name no policy: none selects the Pod, it is not to be known, none may decide."""
_TO_OWN_NODE = 1 << 60  # above a pair of classes and a class of ports

Codes = dict[Direction, NDArray[np.int64]]
"""Numbers of verdicts, as wide as places in arrays are."""


class Side(NamedTuple):
    """One side of connections: numbers of endpoints, and of the nodes they run on, or NONE."""

    endpoints: NDArray[np.int64]
    nodes: NDArray[np.int32]

    def take(self, rows: NDArray[np.int64] | slice) -> "Side":
        """Return that of some connections."""
        return Side(self.endpoints[rows], self.nodes[rows])


class VerdictTable:
    """Numbers of verdicts; the first three name no policy, each for a reason of its own."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget all: numbers given so far mean nothing any more."""
        self._verdicts: list[PolicyVerdict] = []
        self._numbers: dict[PolicyVerdict, int] = {}
        self._strings: Strings | None = None
        self._written = 0
        for verdict in (NOTHING, UNKNOWN, EXEMPT):
            self.number(verdict)

    def __len__(self) -> int:
        return len(self._verdicts)

    def number(self, verdict: PolicyVerdict) -> int:
        """Return the number of a verdict."""
        number = self._numbers.get(verdict)
        if number is None:
            number = self._numbers[verdict] = len(self._verdicts)
            self._verdicts.append(verdict)
        return number

    def columns(
        self, numbers: NDArray[np.int64], direction: Direction, strings: Strings
    ) -> dict[str, Column]:
        """Return the record's five fields of one direction."""
        self._write(strings)
        prefix = f"{direction.value}NetworkPolicy"
        return {
            f"{prefix}Name": self._texts[0].take(numbers),
            f"{prefix}Namespace": self._texts[1].take(numbers),
            f"{prefix}Type": self._types.take(numbers),
            f"{prefix}RuleName": self._texts[2].take(numbers),
            f"{prefix}RuleAction": self._actions.take(numbers),
        }

    def _write(self, strings: Strings) -> None:
        """Have the text of all verdicts in a string table."""
        if strings is not self._strings:
            self._strings, self._written = strings, 0
            self._texts = np.zeros((3, 64), dtype=np.uint32)
            self._types = np.zeros(64, dtype=np.uint8)
            self._actions = np.zeros(64, dtype=np.uint8)
        fresh = self._verdicts[self._written :]
        if not fresh:
            return
        size, had = len(self._verdicts), self._written
        if size > len(self._types):
            more = 2 * size - len(self._types)
            self._texts = np.pad(self._texts, ((0, 0), (0, more)))
            self._types = np.pad(self._types, (0, more))
            self._actions = np.pad(self._actions, (0, more))
        shown = [verdict if verdict.type else NOTHING for verdict in fresh]
        self._texts[0, had:size] = strings.encode(verdict.name for verdict in shown)
        self._texts[1, had:size] = strings.encode(verdict.namespace for verdict in shown)
        self._texts[2, had:size] = strings.encode(verdict.rule for verdict in shown)
        self._types[had:size] = [verdict.type for verdict in shown]
        self._actions[had:size] = [verdict.action for verdict in shown]
        self._written = size


class Classes:
    """Classes of endpoints, and what was decided for pairs of them; good for one rulebook."""

    def __init__(self) -> None:
        self.endpoints: list[Endpoint] = []
        self.numbers: dict[Endpoint, int] = {}
        self.pairs = FlowIndex(8, MAX_PAIRS)
        self.codes = {direction: np.zeros(1024, dtype=np.int64) for direction in Direction}

    @property
    def crowded(self) -> bool:
        """Whether others are to be begun, as with all that may come these would be too many."""
        return len(self.endpoints) > MAX_CLASSES


class VerdictCache:
    """What one generation decides, for endpoints by their numbers in an `EndTable`.

    `classes` are those of another generation with the same rulebook: what was decided for them
    stays, only the endpoints are put into classes anew.
    """

    def __init__(
        self,
        generation: Generation,
        endpoints: EndpointTable,
        verdicts: VerdictTable,
        classes: Classes | None = None,
    ) -> None:
        self.generation = generation
        self.evaluated = 0
        """How often a pair of classes was looked at."""
        self._endpoints = endpoints
        self._verdicts = verdicts
        self.forget()
        # Rules that compare namespaces' labels decide otherwise when those change.
        if classes is None or generation.rules.by_labels or classes.crowded:
            classes = Classes()
        self.classes = classes

    @property
    def crowded(self) -> bool:
        """Whether there is no room for the classes of as many endpoints again."""
        return self.classes.crowded

    def forget(self) -> None:
        """Forget the classes of endpoints, which have other numbers from now on."""
        self._class_of = np.full(1024, NONE, dtype=np.int64)
        self._node_of = np.full(1024, NONE, dtype=np.int32)

    def find(
        self,
        sources: Side,
        destinations: Side,
        protocols: NDArray[np.uint8],
        ports: NDArray[np.uint16],
        to_own_node: NDArray[np.bool_] | None = None,
    ) -> Codes:
        """Return the numbers of the verdicts; at most `MAX_PAIRS` rows at once.

        `to_own_node` says which go to the node that their source's Pod runs on, beside those that
        its object's addresses tell.
        """
        froms, tos = self._classes(sources.endpoints), self._classes(destinations.endpoints)
        # Classes of endpoints and of ports are fewer than 2^20; new endpoints set ports apart.
        pairs = froms << 40
        pairs |= tos << 20
        pairs |= self.generation.rules.ports.find(protocols, ports)
        near = self._is_node_of(destinations, sources)
        pairs[near if to_own_node is None else near | to_own_node] |= _TO_OWN_NODE
        keys = pairs.view(np.uint8).reshape(-1, 8)
        slots, new = self.classes.pairs.upsert(keys)
        if len(slots) and slots.min() < 0:
            self.classes.pairs.clear()
            slots, new = self.classes.pairs.upsert(keys)
        rows = np.flatnonzero(new)
        if len(rows):
            self._evaluate(slots[rows], pairs[rows], protocols[rows], ports[rows])
        found = {direction: codes.take(slots) for direction, codes in self.classes.codes.items()}
        # What a node sends to its own Pods always passes: the kubelet's probes.
        found[Direction.INGRESS][self._is_node_of(sources, destinations)] = NOT_SUBJECT
        return found

    def _is_node_of(self, one: Side, other: Side) -> NDArray[np.bool_]:
        """Where an end has an address of the node that the other one, a Pod, runs on."""
        own = self._node_of.take(one.endpoints)
        return np.asarray((own != NONE) & (own == other.nodes))

    def _classes(self, endpoints: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the class of each end; those that are new get theirs."""
        room = int(endpoints.max(initial=0)) + 1
        if room > len(self._class_of):
            more = 2 * room - len(self._class_of)
            self._class_of = np.pad(self._class_of, (0, more), constant_values=NONE)
            self._node_of = np.pad(self._node_of, (0, more), constant_values=NONE)
        found = self._class_of.take(endpoints)
        if len(found) and found.min() < 0:
            self._classify(np.unique(endpoints[found < 0]))
            found = self._class_of.take(endpoints)
        return found

    def _classify(self, missing: NDArray[np.int64]) -> None:
        """Give ends their class."""
        addresses = self._endpoints.addresses[missing]
        members = self._endpoints.members[missing]
        blocks = self.generation.rules.blocks.find(addresses)
        of_nodes = (members == 0) & self.generation.are_nodes(addresses)
        for row in np.flatnonzero(of_nodes).tolist():
            raw = addresses[row].tobytes()
            self._class_of[missing[row]] = self._class(0, int(blocks[row]), raw)
            self._node_of[missing[row]] = self._endpoints.node(self.generation.nodes[raw])
        # Of all others, addresses outside by the million, only blocks and Pods make a difference.
        rest = np.flatnonzero(~of_nodes)
        kinds = members[rest].astype(np.int64) << 32 | blocks[rest]
        distinct, firsts, places = np.unique(kinds, return_index=True, return_inverse=True)
        classes = [
            self._class(kind >> 32, kind & 0xFFFFFFFF, addresses[rest[first]].tobytes())
            for kind, first in zip(distinct.tolist(), firsts.tolist(), strict=True)
        ]
        self._class_of[missing[rest]] = np.array(classes, dtype=np.int64)[places]

    def _class(self, member: int, blocks: int, address: bytes) -> int:
        """Return the class of an end: its Pod, its place in the blocks' sets, its address."""
        found = self.generation.end(self._endpoints.member(member), blocks, address)
        place = self.classes.numbers.setdefault(found, len(self.classes.endpoints))
        if place == len(self.classes.endpoints):
            self.classes.endpoints.append(found)
        return place

    def _evaluate(
        self,
        slots: NDArray[np.int64],
        pairs: NDArray[np.int64],
        protocols: NDArray[np.uint8],
        ports: NDArray[np.uint16],
    ) -> None:
        self.evaluated += len(slots)
        endpoints = self.classes.endpoints
        connections = [
            (
                endpoints[pair >> 40 & 0xFFFFF],
                Called(protocol, port, endpoints[pair >> 20 & 0xFFFFF]),
                pair >= _TO_OWN_NODE,
            )
            for pair, protocol, port in zip(
                pairs.tolist(), protocols.tolist(), ports.tolist(), strict=True
            )
        ]
        room = int(slots.max()) + 1
        numbers: dict[int, int] = {}  # by identity: most are a rule's own, and hashing one is slow
        for direction, codes in self.classes.codes.items():
            if room > len(codes):
                self.classes.codes[direction] = np.pad(codes, (0, 2 * room - len(codes)))
            found = []
            for source, called, own in connections:
                verdict = self.generation.decide(direction, source, called, to_own_node=own)
                number = numbers.get(id(verdict))
                if number is None:
                    number = numbers[id(verdict)] = self._verdicts.number(verdict)
                found.append(number)
            self.classes.codes[direction][slots] = found
