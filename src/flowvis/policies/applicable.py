"""The rules that apply to Pods of one class, and which of them a connection may match.

Ten thousand policies may select one Pod; to try each of their rules for each new kind of connection
takes longer than a connection may wait. So rules are found by what they ask for: an atom that the
peer has to be in, and a port that it has to call.
"""

from collections.abc import Collection, Iterable, Iterator
from heapq import merge

from flowvis.policies.ports import PortKey
from flowvis.policies.rulebook import CompiledRule

FEW = 64  # rules that are tried one after the other, for less than looking for them costs
MAX_PLACES = 64  # of one rule: with more atoms times ports it is found by its atoms alone


class _Shelf:
    """Places of rules that ask for one atom, or for none."""

    def __init__(self) -> None:
        self.any_port: list[int] = []
        self.by_port: dict[PortKey, list[int]] = {}

    def put(self, place: int, ports: Iterable[PortKey]) -> None:
        """Add a rule, by its ports if there are any."""
        for port in ports:
            self.by_port.setdefault(port, []).append(place)


class ApplicableRules:
    """Rules in their order of evaluation. Iterating gives all of them."""

    def __init__(self, rules: Collection[CompiledRule]) -> None:
        self._rules = tuple(rules)
        self._of_anyone = _Shelf()
        self._by_atom: dict[int, _Shelf] = {}
        if len(self._rules) > FEW:
            for place, rule in enumerate(self._rules):
                self._put(place, rule)

    def __iter__(self) -> Iterator[CompiledRule]:
        return iter(self._rules)

    def possible(self, peer: Collection[int], protocol: int, port: int) -> Iterable[CompiledRule]:
        """Return, in order, the rules that a peer of these atoms may match, or leave open.

        All that are left out do not match for certain.
        """
        return self._rules if len(self._rules) <= FEW else self._found(peer, protocol, port)

    def _found(self, peer: Collection[int], protocol: int, port: int) -> Iterator[CompiledRule]:
        asked = ((protocol, port), (None, port))
        found: set[int] = set()
        if len(peer) <= len(self._by_atom):
            shelves = [self._by_atom[atom] for atom in peer if atom in self._by_atom]
        else:
            shelves = [shelf for atom, shelf in self._by_atom.items() if atom in peer]
        for shelf in (self._of_anyone, *shelves):
            for key in asked:
                found.update(shelf.by_port.get(key, ()))
        # Those of any port may be many and the first may decide: they are not put into order anew.
        orders = [shelf.any_port for shelf in (self._of_anyone, *shelves) if shelf.any_port]
        last = -1
        for place in merge(sorted(found), *orders):
            if place != last:
                yield self._rules[place]
            last = place

    def _put(self, place: int, rule: CompiledRule) -> None:
        peers = rule.peers
        if peers.plain is None or peers.unknowable:
            shelves = [self._of_anyone]
        else:
            atoms = peers.plain.union(atom for atom, _ in peers.related)
            shelves = [self._by_atom.setdefault(atom, _Shelf()) for atom in atoms]
        ports = rule.ports.keys
        if not ports or len(ports) * len(shelves) > MAX_PLACES:
            for shelf in shelves:
                shelf.any_port.append(place)
            return
        for shelf in shelves:
            shelf.put(place, ports)
