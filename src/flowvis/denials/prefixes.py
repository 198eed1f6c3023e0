"""The prefix of a logged packet: which policy denied it, as far as who wrote the rule says so.

Patterns are regular expressions that match the whole prefix. Their named groups say what was found:
`action`, `direction`, `namespace`, `policy`, `rule` and `type`; a group named `drop`, `reject`,
`allow`, `ingress` or `egress` says so by taking part in the match, even if it is empty.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from flowvis.fields import RuleAction

MAX_PREFIX_BYTES = 128  # NF_LOG_PREFIXLEN of linux/netfilter/nf_log.h; iptables has 64


@dataclass(frozen=True, slots=True)
class DenialVerdict:
    """What was decided about a packet, and by what."""

    action: int = RuleAction.DROP
    egress: bool = False
    """Whether the source's policy decided, else the destination's."""
    name: str = ""
    namespace: str = ""
    type: int = 0
    rule: str = ""


FLOWVIS = (
    (
        r"flowvis:(?P<action>\w*):(?P<direction>\w*)"
        r"(?::(?:(?P<namespace>[^/:]*)/)?(?P<policy>[^:]*)(?::(?P<rule>.*))?)?"
    ),
)
"""`flowvis:<action>:<direction>:<namespace>/<name>:<rule>`, from the end as short as one likes."""

_CALICO = r"(?P<action>[ADNP])P(?P<direction>[IE])"
_NAME = r"[a-z0-9][a-z0-9.-]*"  # RFC 1123: so never Felix' hash, which begins with `_`
CALICO = (
    # Staged policies are tried out: they deny nothing.
    r"[ADNP]P[IE]\d*\|(?P<allow>s(?:np|gnp|knp)/|.*staged:).*",
    _CALICO + rf"(?P<rule>\d*)\|(?P<type>np|knp)/(?:(?P<namespace>{_NAME})/)?"
    rf"(?:knp\.default\.)?(?P<policy>{_NAME})",
    _CALICO + r"(?P<rule>\d*)\|(?P<type>gnp|kcnp|kanp|kbanp)/"
    rf"(?:(?:kcnp|kanp|kbanp)\.[^.]+\.)?(?P<policy>{_NAME})",
    # Until 3.30 the kind was part of the name.
    _CALICO + rf"(?P<rule>\d+)\|(?:(?P<namespace>{_NAME})/)?"
    rf"(?:(?P<type>knp|kanp|kbanp)\.[^.]+\.)?(?P<policy>{_NAME})",
    # No policy of the tier let it pass: the tier is the rule.
    _CALICO + rf"\|(?P<rule>{_NAME})",
    # What would have 63 bytes or more is shortened: the first 10 of them, `_`, a hash, `_`, the
    # last 10. A name in it is not whole; kind and number are, as far as they are among the first.
    _CALICO + r"(?P<rule>\d*)\|(?:(?P<type>np|knp|gnp|kcnp|kanp|kbanp)/)?.*",
    # No profile let it pass.
    r"(?P<action>[ADNP])R(?P<direction>[IE])(?P<rule>\d*)(?:\|.*)?",
)
"""Felix: action, owner (policy or profile), direction, number of the rule, `|`, what it is of."""

KUBE_ROUTER = (r"(?P<reject>)",)
"""kube-router logs to group 100 without any prefix, and rejects."""

ANYTHING = r".*"
"""What is logged to our groups and says nothing else was denied."""

PRESETS = {"flowvis": FLOWVIS, "calico": CALICO, "kube-router": KUBE_ROUTER}
"""Patterns that can be had by name."""

DEFAULT = ("flowvis", "calico")

POLICY_TYPES = {
    "knp": 1,
    "k8snetworkpolicy": 1,
    "networkpolicy": 1,
    "antreanetworkpolicy": 2,
    "antreaclusternetworkpolicy": 3,
    "kcnp": 4,
    "kanp": 4,
    "kbanp": 4,
    "k8sclusternetworkpolicy": 4,
    "clusternetworkpolicy": 4,
    "adminnetworkpolicy": 4,
    "baselineadminnetworkpolicy": 4,
    "1": 1,
    "2": 2,
    "3": 3,
    "4": 4,
}
"""Kinds of policies as they are written, in small letters; others have no number (0)."""

_ACTIONS = {
    **dict.fromkeys(("a", "allow", "accept", "p", "pass", "n", "redirect"), RuleAction.ALLOW),
    **dict.fromkeys(("r", "reject", "rejected"), RuleAction.REJECT),
}
_EGRESS = ("e", "egress", "out", "outbound")


class Prefixes:
    """Verdicts by prefix: the first pattern that matches says."""

    def __init__(self, patterns: Sequence[str] = DEFAULT) -> None:
        """Try these in their order, each a name in PRESETS or an expression."""
        texts = [text for pattern in patterns for text in PRESETS.get(pattern, (pattern,))]
        self._patterns = [re.compile(text) for text in (*texts, ANYTHING)]

    def verdict(self, prefix: bytes) -> DenialVerdict | None:
        """Return what a prefix says; None if the packet was not denied."""
        text = prefix.partition(b"\0")[0].decode(errors="replace").strip()
        match = next(filter(None, (pattern.fullmatch(text) for pattern in self._patterns)), None)
        return _verdict(match.groupdict()) if match else DenialVerdict()


def parse_pattern(text: str) -> str:
    """Return a pattern as it is; ValueError says what is wrong with it."""
    if text in PRESETS:
        return text
    try:
        re.compile(text)
    except (re.error, OverflowError, RecursionError) as error:
        names = ", ".join(PRESETS)
        raise ValueError(f"{error}: use {names} or a regular expression of Python") from error
    return text


def _verdict(found: dict[str, str | None]) -> DenialVerdict | None:
    """Make a verdict of named groups."""
    action = _ACTIONS.get((found.get("action") or "").lower(), RuleAction.DROP)
    for flag, meaning in (
        ("drop", RuleAction.DROP),
        ("reject", RuleAction.REJECT),
        ("allow", RuleAction.ALLOW),
    ):
        if found.get(flag) is not None:
            action = meaning
    if action == RuleAction.ALLOW:
        return None
    egress = (found.get("direction") or "").lower() in _EGRESS
    return DenialVerdict(
        action,
        egress=(egress or found.get("egress") is not None) and found.get("ingress") is None,
        name=found.get("policy") or "",
        namespace=found.get("namespace") or "",
        type=POLICY_TYPES.get((found.get("type") or "").lower(), 0),
        rule=found.get("rule") or "",
    )
