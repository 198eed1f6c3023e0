"""Verdicts that the traffic refutes: evaluated as denied, but both endpoints went on talking.

Nothing enforces the policies then, or not yet. It says so in the record's action, with the policy
and rule that should have denied it.
"""

import numpy as np
from numpy.typing import NDArray

from flowvis.batch import Batch, Column, is_ipv4
from flowvis.fields import RuleAction

UNENFORCED = {
    RuleAction.DROP: RuleAction.UNENFORCED_DROP,
    RuleAction.REJECT: RuleAction.UNENFORCED_REJECT,
}
"""Actions of what was not enforced, by what was evaluated."""

_DENYING = np.zeros(256, dtype=bool)
_DENYING[list(UNENFORCED)] = True
_TCP = 6
_REFUSED = ("", "NONE", "SYN_SENT", "CLOSE")
"""States of a TCP connection that may never have been established."""
_HEADERS = 40, 60  # bytes of a segment that only resets: IPv4 or IPv6, and TCP without options


def unenforced(batch: Batch, actions: Column, evaluated: NDArray[np.bool_]) -> Column:
    """Return the rule actions of one direction, with those marked that the traffic refutes.

    Only where `evaluated`: what a record itself reports was done.
    """
    denied = evaluated & _DENYING[actions]
    if not denied.any():
        return actions
    rows = np.flatnonzero(denied & answered(batch))
    found = actions.copy()
    found[rows] = [UNENFORCED[action] for action in actions[rows].tolist()]
    return found


def answered(batch: Batch) -> NDArray[np.bool_]:
    """Where both endpoints sent, and the destination more than that it refuses.

    Of TCP a bare reset is a refusal, which a policy may be the reason of. A batch without counters
    reports no traffic.
    """
    if "reverseOctetTotalCount" not in batch.columns:
        return np.zeros(len(batch), dtype=bool)
    replies = batch["reverseOctetTotalCount"]
    segments = np.maximum(batch["reversePacketTotalCount"], 1)
    bare = replies <= segments * np.where(is_ipv4(batch["sourceIP"]), *_HEADERS).astype(np.uint64)
    states = batch.strings.encode(_REFUSED)
    refused = (batch["protocolIdentifier"] == _TCP) & bare & np.isin(batch["tcpState"], states)
    return np.asarray((batch["octetTotalCount"] > 0) & (replies > 0) & ~refused)
