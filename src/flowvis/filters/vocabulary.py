"""The names of the filter language: what each means, and of which columns of `flows` it is made.

`src.X` and `dst.X` are of one end of a connection, `X` alone is of either. A name that has one
value in each record is a dimension as well: something to group by.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial

from flowvis.clickhouse.schema.formulas import INSERTED
from flowvis.clickhouse.schema.tables import FLOWS_COLUMNS, UNANSWERED
from flowvis.fields import BY_NAME, FLOW_TYPES, PROTOCOLS, EndReason, Field, RuleAction
from flowvis.fields import Kind as FieldKind
from flowvis.filters import literals
from flowvis.filters.attributes import (
    POLICY_KINDS,
    Address,
    Amount,
    Attribute,
    Choice,
    Kind,
    Label,
    Named,
    PolicyNamed,
    ServiceNamed,
    Verdict,
    WhereSet,
    Words,
    YesNo,
    within,
)
from flowvis.filters.errors import FilterError, nearest
from flowvis.filters.networks import TEXTS
from flowvis.filters.predicates import (
    Every,
    Flag,
    Negation,
    Number,
    NumberIn,
    Predicate,
    Text,
    TextHas,
    TextIn,
    column_number,
    column_text,
    joined,
    lasted,
    milliseconds,
    some,
    total,
)
from flowvis.filters.tree import Operator, Value

END_REASONS = {
    "idle": EndReason.IDLE,
    "active": EndReason.ACTIVE,
    "end": EndReason.END,
    "forced": EndReason.FORCED,
    "resources": EndReason.LACK_OF_RESOURCES,
}
ACTIONS = {
    "allow": RuleAction.ALLOW,
    "drop": RuleAction.DROP,
    "reject": RuleAction.REJECT,
    "unenforced-drop": RuleAction.UNENFORCED_DROP,
    "unenforced-reject": RuleAction.UNENFORCED_REJECT,
}
STATES = (
    "NONE", "SYN_SENT", "SYN_RECV", "ESTABLISHED", "FIN_WAIT", "CLOSE_WAIT", "LAST_ACK",
    "TIME_WAIT", "CLOSE", "SYN_SENT2",
)  # fmt: skip
"""States of TCP as conntrack names them (nf_conntrack_tcp.h)."""
WORKLOAD_KINDS = (
    "Deployment", "StatefulSet", "DaemonSet", "Job", "CronJob", "ReplicaSet", "Pod", "Node",
)  # fmt: skip
SIDES = {"src": "source", "dst": "destination"}
_DIRECTIONS = {"source": "egress", "destination": "ingress"}


@dataclass(frozen=True)
class Name:
    """A name and what it stands for: one attribute, or one of each end."""

    name: str
    help: str
    attributes: tuple[Attribute, ...]

    @property
    def kind(self) -> Kind:
        """What its values are."""
        return self.attributes[0].kind

    @property
    def operators(self) -> Sequence[Operator]:
        """What may stand between it and a value."""
        return self.attributes[0].operators

    @property
    def known(self) -> Sequence[str]:
        """Values with names; all that there are where the kind is ENUM."""
        return self.attributes[0].known

    @property
    def expression(self) -> str | None:
        """SQL of its value in a record; None where it has more than one, or nobody groups by it."""
        return self.attributes[0].expression if len(self.attributes) == 1 else None

    @property
    def sided(self) -> bool:
        """Whether there are `src.X` and `dst.X` of it as well."""
        return self.label or f"{next(iter(SIDES))}.{self.name}" in NAMES

    @property
    def column(self) -> bool:
        """Whether it is a column of `flows` under its own name."""
        return self.name in FLOWS_COLUMNS

    @property
    def label(self) -> bool:
        """Whether it is a label of the Pods at either end."""
        return self.name.startswith("label.")

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """The columns of `flows` that it is made of."""
        return tuple(dict.fromkeys(c for each in self.attributes for c in each.columns))

    def predicate(self, operator: Operator, values: Sequence[Value]) -> Predicate:
        """Return the predicate of a comparison. FilterError where a value or the operator is wrong.

        What is denied is denied of both ends: `pod != a` is true where neither end is a.
        """
        if operator not in self.operators:
            raise self.refuses(operator)
        found = some(each.predicate(operator.positive, values) for each in self.attributes)
        return found if operator is operator.positive else Negation(found)

    def refuses(self, operator: Operator) -> FilterError:
        """Return the error of an operator that it does not have."""
        return FilterError(
            f"{self.name} cannot be compared with `{operator.value}`",
            expected=[each.value for each in self.operators],
        )


def lookup(text: str) -> Name:
    """Return the name that is written; FilterError with the nearest one where there is none."""
    spelled = _spelled(text)
    if found := NAMES.get(spelled):
        return found
    if label := _LABEL.fullmatch(spelled):
        return _label(label["side"] or "", label["key"])
    if any(spelled.startswith(f"{side}label") for side in ("", "src.", "dst.")):
        raise FilterError(
            f"{text[:80]!r} is no label", expected=("label.KEY", "src.label.KEY", "dst.label.KEY")
        )
    if spelled == INSERTED:
        raise FilterError(
            f"{INSERTED} is of what is stored only, not of what comes", suggestion="end"
        )
    raise FilterError(
        f"{text[:80]!r} is not the name of anything",
        expected=[name for name in NAMES if name not in FLOWS_COLUMNS and "." not in name],
        suggestion=nearest(text, NAMES),
    )


def is_name(text: str) -> bool:
    """Whether a word is a name."""
    try:
        lookup(text)
    except FilterError:
        return False
    return True


def expression(name: str) -> str:
    """Return SQL of what a record has under a name, for GROUP BY; FilterError where it has two."""
    found = lookup(name)
    if found.expression is None:
        both = len(found.attributes) > 1
        raise FilterError(
            f"{found.name} is {'of either end' if both else 'a quantity'}, and nothing to group by",
            expected=[f"{side}.{found.name}" for side in SIDES]
            if both
            else [name.name for name in dimensions()],
            suggestion=f"src.{found.name}" if both else None,
        )
    return found.expression


def dimensions() -> Iterator[Name]:
    """Go through the names that have one value in each record; labels, of any key, are more."""
    return (name for name in NAMES.values() if name.expression is not None)


def listed() -> Iterator[Name]:
    """Go through the names as people are shown them, without sides; `label.KEY` is of any key."""
    shown = [name for name in NAMES.values() if name.name.partition(".")[0] not in SIDES]
    yield from (name for name in shown if not name.column)
    yield lookup("label.KEY")
    yield from (name for name in shown if name.column)


@lru_cache(maxsize=256)
def search(text: str) -> Predicate:
    """Return the predicate of a text alone: part of a name, or the address that it is."""
    part = text.encode()
    texts = _searched_whole() if "/" in text else map(column_text, _SEARCHED)
    parts: list[Predicate] = [TextHas(each, part) for each in texts]
    network = literals.searched_network(text)
    if network is not None:
        parts += [within(column, network) for column in _ADDRESSES]
    return some(parts)


_SEARCHED = (
    *(
        f"{end}{what}"
        for end in SIDES.values()
        for what in ("PodNamespace", "PodName", "WorkloadName", "NodeName")
    ),
    "destinationServicePortName",
)
_ADDRESSES = ("sourceIP", "destinationIP", "destinationServiceIP")


def _searched_whole() -> Iterator[Text]:
    for end in SIDES.values():
        for what in ("PodName", "WorkloadName"):
            yield joined(f"{end}PodNamespace", column_text(f"{end}{what}"))
    yield column_text("destinationServicePortName")


_ALIASES = {"source": "src", "destination": "dst", "from": "src", "to": "dst"}
_OTHER_NAMES = {"protocol": "proto", "owner": "workload"}


def _spelled(text: str) -> str:
    """Return a name as it is spelled here."""
    side, dot, rest = text.partition(".")
    if not dot:
        side, rest = "", text
    side = _ALIASES.get(side.lower(), side.lower())
    if rest.lower().startswith("label."):  # keys of labels have capitals
        rest = f"label.{rest[6:]}"
    elif side != "label":
        rest = _OTHER_NAMES.get(rest.lower(), rest)
        rest = _FOLDED.get(f"{side}{dot}{rest}".lower(), rest).removeprefix(f"{side}{dot}")
    return f"{side}{dot}{rest}"


_LABEL = re.compile(
    r"(?:(?P<side>src|dst)\.)?label\.(?P<key>[A-Za-z0-9](?:[A-Za-z0-9._/-]{0,315}))"
)
"""Keys as Kubernetes allows them: a DNS name of 253 characters, a slash, a name of 63."""
LABEL_HELP = "Value of the Pod's label KEY; empty where it has none, or labels are not recorded"


@lru_cache(maxsize=256)
def _label(side: str, key: str) -> Name:
    ends = [SIDES[side]] if side else list(SIDES.values())
    attributes = tuple(Label(f"{end}PodLabels", key) for end in ends)
    prefix = f"{side}." if side else ""
    return Name(f"{prefix}label.{key}", LABEL_HELP, attributes)


def _workload_kind(end: str) -> Text:
    kind, pod, node = f"{end}WorkloadKind", f"{end}PodName", f"{end}NodeName"
    return Text(
        (kind, pod, node),
        f"multiIf({kind} != '', {kind}, {pod} != '', 'Pod', {node} != '', 'Node', '')",
        lambda kind, pod, node: kind or (b"Pod" if pod else b"Node" if node else b""),
    )


def _octets(number: Number | str) -> Amount:
    return Amount(Kind.BYTES, number, literals.octets)


def _packets(number: Number | str) -> Amount:
    return Amount(Kind.NUMBER, number, literals.count)


def _rate(number: Number | str) -> Amount:
    return Amount(Kind.RATE, number, literals.rate)


def _unanswered() -> YesNo:
    """The same as the measure of this name counts."""
    verdict = Verdict(*_DIRECTIONS.values())
    ended = Flag(
        UNANSWERED,
        Every(
            (
                NumberIn(column_number("flowEndReason"), (EndReason.END,)),
                Negation(NumberIn(column_number("packetTotalCount"), (0,))),
                NumberIn(column_number("reversePacketTotalCount"), (0,)),
            )
        ),
    )
    return YesNo(
        Every((ended, Negation(verdict.equal(Value("denied"))))),
        f"{UNANSWERED} = 1 AND {verdict.expression} NOT IN ('rejected', 'dropped')",
        (UNANSWERED, *verdict.columns),
    )


def _crosses(what: str) -> YesNo:
    """Whether the ends are in different places, as far as it is known where both are."""
    columns = tuple(f"{end}{what.capitalize()}" for end in SIDES.values())
    one, other = columns
    found = Text(
        columns,
        f"if({one} != '' AND {other} != '' AND {one} != {other}, 'yes', '')",
        lambda one, other: b"yes" if one and other and one != other else b"",
    )
    return YesNo(TextIn(found, (b"yes",)), f"{found.sql} = 'yes'", columns)


def _port(column: str) -> Amount:
    read = partial(literals.count, largest=0xFFFF)
    return Amount(Kind.NUMBER, column, read, groups=True, optional=True)


def _time(number: Number | str) -> Amount:
    return Amount(Kind.TIME, number, literals.moment, optional=True)


def _sided() -> Iterator[tuple[str, str, Callable[[str], Attribute], tuple[Attribute, ...]]]:
    """Go through names of ends: name, help, what it is of an end, what more it is alone."""
    yield "namespace", "Namespace of the Pod", lambda end: Words(f"{end}PodNamespace"), ()
    yield (
        "pod", "Pod: name, or namespace/name",
        lambda end: Named(f"{end}PodNamespace", (f"{end}PodName",)), (),
    )  # fmt: skip
    yield (
        "workload", "What runs the Pod: name, or namespace/name; of a Pod by itself the Pod",
        lambda end: Named(f"{end}PodNamespace", (f"{end}WorkloadName", f"{end}PodName")), (),
    )  # fmt: skip
    yield (
        "kind", "Kind of the workload; Pod of a Pod by itself, Node of a node's own address",
        lambda end: Words(_workload_kind(end), WORKLOAD_KINDS), (),
    )  # fmt: skip
    yield "node", "Node of the Pod, or whose address it is", lambda end: Words(f"{end}NodeName"), ()
    yield (
        "zone", "Zone of the node: its label topology.kubernetes.io/zone",
        lambda end: Words(f"{end}Zone"), (),
    )  # fmt: skip
    yield (
        "region", "Region of the node: its label topology.kubernetes.io/region",
        lambda end: Words(f"{end}Region"), (),
    )  # fmt: skip
    yield (
        "network", "Name that the configuration has for the network; empty of Pods and nodes",
        lambda end: Words(TEXTS[end]), (),
    )  # fmt: skip
    yield (
        "ip", "Address, or a network that it is in; alone also the Service's that was called",
        lambda end: Address(f"{end}IP"), (WhereSet(Address("destinationServiceIP")),),
    )  # fmt: skip
    yield (
        "port", "Port; alone also the Service's that was called",
        lambda end: _port(f"{end}TransportPort"), (WhereSet(_port("destinationServicePort")),),
    )  # fmt: skip
    yield (
        "policy", "Policy that decided at this end (src: egress, dst: ingress): name,"
        " namespace/name, or kind:namespace/name with the kind "
        + ", ".join(POLICY_KINDS),
        lambda end: PolicyNamed(_DIRECTIONS[end]), (),
    )  # fmt: skip
    yield (
        "rule", "Rule of the policy that decided at this end",
        lambda end: Words(f"{_DIRECTIONS[end]}NetworkPolicyRuleName"), (),
    )  # fmt: skip


def _whole() -> Iterator[tuple[str, str, Attribute]]:
    """Go through the names that a connection has one of: the name, help, and what it is."""
    yield (
        "verdict",
        "What policies decided: at either end, the stronger",
        Verdict("ingress", "egress"),
    )
    yield (
        "unanswered",
        "Whether the connection ended without any packet back, and no policy denied it",
        _unanswered(),
    )
    for what in ("zone", "region"):
        yield (
            f"cross{what}",
            f"Whether the ends' nodes are in two {what}s; no where one of them is not known",
            _crosses(what),
        )
    yield "src.verdict", "What policies decided at the source (egress)", Verdict("egress")
    yield "dst.verdict", "What policies decided at the destination (ingress)", Verdict("ingress")
    for what, unit, make in (
        ("octet", "bytes", _octets),
        ("packet", "packets", _packets),
    ):
        forth, back = f"{what}DeltaCount", f"reverse{what.capitalize()}DeltaCount"
        yield unit, f"{unit.capitalize()} of the record, both ways", make(total(forth, back))
        yield f"src.{unit}", f"{unit.capitalize()} that the source sent", make(forth)
        yield f"dst.{unit}", f"{unit.capitalize()} that the destination sent", make(back)
    forth, back = "throughput", "reverseThroughput"
    yield "rate", "Bits per second of the record, both ways", _rate(total(forth, back))
    yield "src.rate", "Bits per second that the source sent", _rate(forth)
    yield "dst.rate", "Bits per second that the destination sent", _rate(back)
    yield (
        "duration",
        "From the connection's start to the record's end; a number alone is seconds",
        Amount(Kind.DURATION, lasted("flowStartSeconds", "flowEndSeconds"), literals.duration),
    )
    for name, text in (("start", "When the connection began"), ("end", "The record's end")):
        column = f"flow{name.capitalize()}Seconds"
        yield name, text, _time(milliseconds(column))
    yield (
        "service",
        "Service that was called: name, namespace/name, or namespace/name:port",
        ServiceNamed("destinationServicePortName"),
    )
    yield "proto", "IP protocol, by name or number", Choice("protocolIdentifier", PROTOCOLS)
    yield "type", "Where the connection runs", Choice("flowType", FLOW_TYPES)
    yield "reason", "Why the record was written", Choice("flowEndReason", END_REASONS)
    yield "state", "State of the TCP connection", Words("tcpState", STATES)
    yield "egress", "Egress that the connection leaves through", Words("egressName")
    yield "cluster", "The cluster's id", Words(_CLUSTER[0])


_CHOICES = {
    "protocolIdentifier": PROTOCOLS,
    "flowType": FLOW_TYPES,
    "flowEndReason": END_REASONS,
    **{f"{direction}NetworkPolicyType": POLICY_KINDS for direction in _DIRECTIONS.values()},
    **{f"{direction}NetworkPolicyRuleAction": ACTIONS for direction in _DIRECTIONS.values()},
}


_CLUSTER = ("clusterUUID", "clusterId")
"""Both names of one column, the one that `flow_records` has first."""


def _column(name: str, field: Field | None) -> Attribute:
    """Return what a column of `flows` is, under its own name."""
    kind = field.kind if field else FieldKind.U8
    if name in _CHOICES:
        return Choice(name, _CHOICES[name])
    if kind in {FieldKind.TEXT, FieldKind.ADDRESS}:
        return Words(name) if kind is FieldKind.TEXT else Address(name)
    if kind in {FieldKind.SECONDS, FieldKind.MILLISECONDS}:
        return _time(milliseconds(name) if kind is FieldKind.SECONDS else name)
    if kind is FieldKind.U64:
        folded = name.lower()
        return (_octets if "octet" in folded else _rate if "throughput" in folded else _packets)(
            name
        )
    if name.endswith("Port"):
        return _port(name)
    largest = (1 << 8 * kind.dtype.itemsize) - 1
    return Amount(Kind.NUMBER, name, partial(literals.count, largest=largest), groups=True)


def _names() -> Iterator[Name]:
    for name, text, make, more in _sided():
        ends = [make(end) for end in SIDES.values()]
        yield Name(name, f"{text}, of either end", (*ends, *more))
        for side, end in zip(SIDES, ends, strict=True):
            yield Name(f"{side}.{name}", f"{text}, of the {SIDES[side]}", (end,))
    for name, text, attribute in _whole():
        yield Name(name, text, (attribute,))
    for column in FLOWS_COLUMNS:
        if column != INSERTED:
            field = BY_NAME.get("clusterId" if column in _CLUSTER else column)
            help_text = (
                field.doc if field else "1 where people have marked a denied flow as legitimate"
            )
            attribute = _column(_CLUSTER[0] if column in _CLUSTER else column, field)
            yield Name(column, help_text, (attribute,))


NAMES: dict[str, Name] = {name.name: name for name in _names()}
"""Every name but those of labels, in the order in which people are shown them."""

_FOLDED = {name.lower(): name for name in NAMES}
