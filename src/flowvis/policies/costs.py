"""Which policies are too much to work out, so that one of them cannot take all memory or time.

An address block cuts the space of addresses in pieces, and each piece has its set of blocks: 8,000
blocks over each other, half a megabyte of one policy, are 64 million places. Selectors are places
too, in the set of each Pod's class, and rules are looked at one after the other. A group is as many
peers as it has members, in each rule that names it. What a policy that costs too much may decide is
unknown, and all others stay as they are.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from flowvis.policies.model import (
    AddressBlock,
    Direction,
    GroupName,
    Peer,
    Pods,
    Policy,
    PolicyType,
)
from flowvis.policies.networks import pieces
from flowvis.policies.objects import Snapshot

PolicyKey = tuple[PolicyType, str, str, str]
"""Type, kind, namespace, name: of one type may be kinds that have the same name."""

MAX_RULES = 1000  # of a policy in one direction: each is looked at for each pair of classes
MAX_SELECTORS = 1000  # of Pods, distinct, in one policy: places in the set of each class of Pods
MAX_PLACES = 1 << 20  # of blocks in the sets of all pieces: some 50 MB
MAX_BLOCKS = 1 << 17  # distinct, of all policies together: two seconds to compile
MAX_PEERS = 1 << 20  # of all rules of all policies, with those of groups: 40 MB and three seconds

RULES = f"more than {MAX_RULES} rules"
SELECTORS = f"more than {MAX_SELECTORS} different selectors"
BLOCKS = "address blocks that overlap in too many places"
MANY_BLOCKS = "too many address blocks"
PEERS = "groups with too many peers for so many rules"


def key_of(policy: Policy) -> PolicyKey:
    """Return what names a policy: to compare all of its rules would cost more than they do."""
    return policy.type, policy.kind, policy.namespace, policy.name


def too_costly(snapshot: Snapshot) -> dict[PolicyKey, str]:
    """Return the policies that are too much, and of what they have too much."""
    found = _crowded(snapshot)
    blocks: dict[PolicyKey, set[AddressBlock]] = {}
    for policy in snapshot.policies:
        key = key_of(policy)
        if key in found:
            continue
        peers = set(snapshot.expand(_peers(policy)))
        if any(len(policy.rules(direction) or ()) > MAX_RULES for direction in Direction):
            found[key] = RULES
        if sum(isinstance(peer, Pods) for peer in peers) > MAX_SELECTORS:
            found[key] = SELECTORS
        mine = {peer for peer in peers if isinstance(peer, AddressBlock)}
        if mine:
            blocks.setdefault(key, set()).update(mine)
    found |= _numerous({key: mine for key, mine in blocks.items() if key not in found})
    while charged := _charges({key: mine for key, mine in blocks.items() if key not in found}):
        most = max(charged.values())
        found |= {key: BLOCKS for key, charge in charged.items() if 2 * charge > most}
    return found


def _crowded(snapshot: Snapshot) -> dict[PolicyKey, str]:
    """Return the policies that have the most peers, if all of them together have too many."""
    sizes: dict[Peer, int] = {}

    def size(peer: Peer) -> int:
        if not isinstance(peer, GroupName):
            return 1
        if peer not in sizes:
            sizes[peer] = sum(1 for _ in snapshot.expand([peer]))
        return sizes[peer]

    counts = {key_of(policy): sum(map(size, _peers(policy))) for policy in snapshot.policies}
    found: dict[PolicyKey, str] = {}
    while sum(counts.values()) > MAX_PEERS:
        most = max(counts.values())
        found |= {key: PEERS for key, count in counts.items() if 2 * count > most}
        counts = {key: count for key, count in counts.items() if key not in found}
    return found


def _numerous(blocks: Mapping[PolicyKey, set[AddressBlock]]) -> dict[PolicyKey, str]:
    """Return the policies that have the most blocks, if all of them together have too many."""
    left, found = dict(blocks), dict[PolicyKey, str]()
    while sum(map(len, left.values())) > MAX_BLOCKS < len(set().union(*left.values())):
        most = max(map(len, left.values()))
        found |= {key: MANY_BLOCKS for key, mine in left.items() if 2 * len(mine) > most}
        left = {key: mine for key, mine in left.items() if key not in found}
    return found


def _peers(policy: Policy) -> Iterable[Peer]:
    """Go through all peers and subjects."""
    for direction in Direction:
        for rule in policy.rules(direction) or ():
            yield from rule.subjects
            yield from rule.peers or ()


def _charges(blocks: Mapping[PolicyKey, set[AddressBlock]]) -> dict[PolicyKey, int]:
    """Return what each policy costs; nothing if all of them together are not too much.

    Who cuts the space pays for all sets at the cut: a policy of one large block is not to blame for
    a neighbour's thousand small ones in it.
    """
    cuts = {block: pieces(block) for block in set().union(*blocks.values())}
    if _worst(list(cuts.values())) <= MAX_PLACES:
        return {}
    steps: Counter[int] = Counter()
    for each in cuts.values():
        for low, high in each:
            steps[low] += 1
            steps[high] -= 1
    depth, total, depths = 0, 0, {}
    for point in sorted(steps):
        depth += steps[point]
        depths[point] = max(depth, 1)
        total += depth
    if total <= MAX_PLACES:
        return {}
    return {
        key: sum(depths[point] for block in mine for piece in cuts[block] for point in piece)
        for key, mine in blocks.items()
    }


def _worst(cuts: Sequence[Sequence[tuple[int, int]]]) -> int:
    """Return how many places there are at most: every block in every piece."""
    return len(cuts) * (1 + 2 * sum(map(len, cuts)))
