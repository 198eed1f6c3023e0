"""What Antrea's aggregator answers, in its own form: for antctl and what people built on it.

Its documents are those of Antrea's pkg/flowaggregator/apis; a flow's keys are the names of the
information elements of its family.
"""

import logging
import platform
from collections.abc import Callable
from typing import Any

from aiohttp import web

from flowvis.aggregator.api import answers
from flowvis.aggregator.api.caller import Caller
from flowvis.aggregator.api.listing import rows
from flowvis.aggregator.api.paths.live import Live
from flowvis.aggregator.api.problems import Problem
from flowvis.aggregator.api.routes import (
    OBJECT,
    TEXT,
    WHOLE,
    Needs,
    Parameter,
    Route,
    number,
    whole,
)
from flowvis.batch import Batch, address_bytes
from flowvis.fields import BY_NAME, Kind
from flowvis.filters import Comparison, Filter, Operator, Value, all_of
from flowvis.filters.mask import mask
from flowvis.runtime.build import build_info

_POLICY = ("Namespace", "Name", "RuleName", "RuleAction")
KEYS = (
    "sourceIP", "destinationIP", "destinationClusterIP", "destinationServiceIP",
    "sourceTransportPort", "destinationTransportPort", "protocolIdentifier", "tcpState",
    "flowStartSeconds", "flowEndSeconds", "flowEndSecondsFromSourceNode",
    "flowEndSecondsFromDestinationNode", "flowType", "flowEndReason",
    "sourcePodName", "sourcePodNamespace", "sourceNodeName",
    "destinationPodName", "destinationPodNamespace", "destinationNodeName",
    "destinationServicePort", "destinationServicePortName",
    *(f"{way}NetworkPolicy{what}" for way in ("ingress", "egress") for what in _POLICY),
    "egressName", "egressIP", "egressNodeName",
    *(
        f"{what}{count}Count"
        for count in ("Total", "Delta")
        for what in ("packet", "reversePacket", "octet", "reverseOctet")
    ),
    "throughput", "reverseThroughput",
)  # fmt: skip
"""The fields that Antrea shows of a flow."""

SELECTING = {
    "srcip": ("src.ip", "the source's address"),
    "dstip": ("dst.ip", "the destination's address"),
    "proto": ("proto", "the number of the protocol"),
    "srcport": ("src.port", "the source's port"),
    "dstport": ("dst.port", "the destination's port"),
}
LARGEST = {"proto": 0xFF, "srcport": 0xFFFF, "dstport": 0xFFFF}

DEBUG = 4
"""The verbosity, in klog's numbers, that stands for our level debug; 0 stands for the others."""


def routes(live: Live, metrics: Callable[[], dict[str, Any]]) -> list[Route]:
    """Return the routes; `metrics` are those of /recordmetrics."""

    async def flow_records(caller: Caller, request: web.Request) -> web.StreamResponse:
        chosen = caller.visibility.restrict(_selected(request))
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        mark = b"["
        for part in live():
            wanted = part.take(mask(chosen, part))
            for first in range(0, len(wanted), answers.LINES):
                found = _flows(wanted.take(slice(first, first + answers.LINES)))
                await response.write(mark + ",\n".join(map(answers.dumps, found)).encode())
                mark = b",\n"
        await response.write(b"[]\n" if mark == b"[" else b"]\n")
        await response.write_eof()
        return response

    async def record_metrics(_: Caller, __: web.Request) -> web.Response:
        return answers.document(metrics())

    return [
        Route(
            "GET",
            "/flowrecords",
            flow_records,
            "Flows that are live in the table, as Antrea shows them",
            parameters=tuple(
                Parameter(
                    name,
                    f"Only flows with this: {text}",
                    whole(0, LARGEST[name]) if name in LARGEST else TEXT,
                )
                for name, (_, text) in SELECTING.items()
            ),
            answer={"type": "array", "items": OBJECT},
        ),
        Route(
            "GET",
            "/recordmetrics",
            record_metrics,
            "Records and flows in numbers, as Antrea shows them",
            answer=OBJECT,
            needs=Needs.EVERYTHING,
        ),
        Route("GET", "/version", _version, "What runs, as Kubernetes says it", answer=OBJECT),
        *(
            Route(
                method,
                "/loglevel",
                _log_level,
                "The log's verbosity: 0, or 4 for debug; `level` sets it until the next change",
                parameters=(Parameter("level", "The verbosity to have from now on", WHOLE),),
                answer=WHOLE,
                needs=Needs.EVERYTHING,
            )
            for method in ("GET", "PUT")
        ),
    ]


def _selected(request: web.Request) -> Filter:
    """Return the flows that are asked for; a 0 or nothing means any, as in Antrea."""
    found: list[Filter] = []
    for name, (known, _) in SELECTING.items():
        if name in LARGEST:
            text = str(number(request, name, 0, LARGEST[name]) or "")
        else:
            text = request.query.get(name, "")
            _check_address(name, text)
        if text:
            found.append(Comparison(known, Operator.IS, (Value(text),)))
    return all_of(found)


def _check_address(name: str, text: str) -> None:
    try:
        if text:
            address_bytes(text)
    except ValueError as error:
        raise Problem("bad-request", f"{name} {text[:80]!r}: an address") from error


def _flows(batch: Batch) -> list[dict[str, Any]]:
    shown = batch.select(name for name in KEYS if name in batch)
    return [_flow(row) for row in rows(shown)]


def _flow(row: dict[str, Any]) -> dict[str, Any]:
    version = 6 if ":" in row["sourceIP"] else 4
    return {
        BY_NAME[name].element(version): value
        for name, value in row.items()
        if value or BY_NAME[name].kind is not Kind.ADDRESS
    }


async def _version(_: Caller, __: web.Request) -> web.Response:
    info = build_info()
    major, minor, *_rest = [*info["version"].split("."), "", ""]
    return answers.document(
        {
            "major": major,
            "minor": minor,
            "gitVersion": f"v{info['version']}",
            "gitCommit": "",
            "gitTreeState": "",
            "buildDate": "",
            "goVersion": "",
            "compiler": f"CPython {info['python']}",
            "platform": f"{platform.system().lower()}/{platform.machine()}",
        }
    )


async def _log_level(_: Caller, request: web.Request) -> web.Response:
    root = logging.getLogger()
    if request.query.get("level"):
        verbose = number(request, "level", 0) >= DEBUG
        root.setLevel(logging.DEBUG if verbose else logging.INFO)
    return answers.document(DEBUG if root.level <= logging.DEBUG else 0)
