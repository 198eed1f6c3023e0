"""Records as lines of files: CSV with Antrea's columns, and JSON.

CSV is that of RFC 4180 but for its line ends: a text with a separator, quote or line end in it has
quotes around it, and quotes in it are doubled. There is no heading.
"""

import json
from collections.abc import Callable, Sequence
from functools import partial

from flowvis.aggregator.destinations.texts import NAMES, Written, column_texts
from flowvis.batch import Batch
from flowvis.fields import BY_NAME, FIELDS, Field

Lines = Callable[[Batch], bytes]
"""What makes lines of a batch, one a record."""

_POLICY = ("Name", "Namespace", "RuleName", "RuleAction", "Type")
_TUPLE = (
    "sourceIP", "destinationIP", "sourceTransportPort", "destinationTransportPort",
    "protocolIdentifier",
)  # fmt: skip
_PODS = (
    "sourcePodName", "sourcePodNamespace", "sourceNodeName",
    "destinationPodName", "destinationPodNamespace", "destinationNodeName",
)  # fmt: skip
_EGRESS = ("egressName", "egressIP", "egressNodeName")
_POLICIES = tuple(f"{way}NetworkPolicy{of}" for way in ("ingress", "egress") for of in _POLICY)
_LABELS = ("sourcePodLabels", "destinationPodLabels")

LOGGED: tuple[Field, ...] = tuple(
    BY_NAME[name]
    for name in (
        "flowStartSeconds", "flowEndSeconds", *_TUPLE, *_PODS, "destinationClusterIP",
        "destinationServiceIP", "destinationServicePort", "destinationServicePortName",
        *_POLICIES, *_EGRESS,
    )
)  # fmt: skip
"""The 30 columns of Antrea's flow log."""

UPLOADED: tuple[Field | None, ...] = tuple(
    BY_NAME[name] if name else None
    for name in (
        "flowStartSeconds", "flowEndSeconds", "flowEndSecondsFromSourceNode",
        "flowEndSecondsFromDestinationNode", "flowEndReason", *_TUPLE,
        "packetTotalCount", "octetTotalCount", "packetDeltaCount", "octetDeltaCount",
        "reversePacketTotalCount", "reverseOctetTotalCount",
        "reversePacketDeltaCount", "reverseOctetDeltaCount", *_PODS, "destinationClusterIP",
        "destinationServiceIP", "destinationServicePort", "destinationServicePortName",
        *_POLICIES, "tcpState", "flowType", *_LABELS,
        "throughput", "reverseThroughput",
        "throughputFromSourceNode", "throughputFromDestinationNode",
        "reverseThroughputFromSourceNode", "reverseThroughputFromDestinationNode",
        "clusterId", "", *_EGRESS,
    )
)  # fmt: skip
"""The 53 columns of Antrea's files in S3; None: when the file was made, in seconds."""

WHOLE: tuple[Field, ...] = tuple(field for field in FIELDS if field.stored)
"""What records of ours have in JSON and Parquet."""


def csv_log(batch: Batch, *, pretty: bool) -> bytes:
    """Lines of the flow log; `pretty` has names instead of numbers."""
    quoted = partial(_quoted, mark='"')
    return _joined([_column(batch, field, quoted, pretty) for field in LOGGED])


def csv_upload(batch: Batch, made_s: int) -> bytes:
    """Lines of a file in S3. Its quotes are single ones, which labels always have around them."""
    quoted, always = partial(_quoted, mark="'"), partial(_in_quotes, mark="'")
    return _joined(
        [
            [str(made_s)] * len(batch)
            if field is None
            else column_texts(batch, field, always if field.name in _LABELS else quoted)
            for field in UPLOADED
        ]
    )


def json_log(batch: Batch, *, pretty: bool, fields: Sequence[Field] = WHOLE) -> bytes:
    """An object a line, with the fields' names as keys; `pretty` has names instead of numbers."""
    keys = ", ".join(f'"{field.name}": %s' for field in fields)
    form = f"{{{keys}}}\n"
    columns = [_column(batch, field, _escaped, pretty) for field in fields]
    return "".join(form % values for values in zip(*columns, strict=True)).encode()


def _column(batch: Batch, field: Field, written: Written, pretty: bool) -> list[str]:
    return column_texts(batch, field, written, NAMES.get(field.name) if pretty else None)


def _joined(columns: Sequence[Sequence[str]]) -> bytes:
    return "".join(f"{','.join(values)}\n" for values in zip(*columns, strict=True)).encode()


def _quoted(text: str, mark: str) -> str:
    special = {mark, ",", "\n", "\r"}
    return text if special.isdisjoint(text) else _in_quotes(text, mark)


def _in_quotes(text: str, mark: str) -> str:
    return f"{mark}{text.replace(mark, 2 * mark)}{mark}"


def _escaped(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
