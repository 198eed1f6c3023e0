"""In which format metrics are exposed: what a scraper asks for by its Accept header.

There are two: Prometheus's text (0.0.4) and OpenMetrics 1.0.0. The header is the scraper's, so it
is only read, never repeated: odd versions, weights and all else that we do not know make it one
that asks for less, and not for an error.
"""

import math
import re
from collections.abc import Callable
from typing import NamedTuple

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest as text
from prometheus_client.openmetrics.exposition import generate_latest as openmetrics


class Format(NamedTuple):
    """A format, and its media type as a response has it."""

    content_type: str
    encode: Callable[[CollectorRegistry], bytes]


TEXT = Format("text/plain; version=0.0.4; charset=utf-8", text)
OPENMETRICS = Format("application/openmetrics-text; version=1.0.0; charset=utf-8", openmetrics)

_OPENMETRICS_1 = re.compile(r"(1(\.[0-9]{1,4}){0,2})?")
"""Versions of OpenMetrics that 1.0.0 serves; none asks for whatever there is."""
_TEXTS = frozenset(("text/plain", "text/*", "*/*"))


def choose(accept: str) -> Format:
    """Return the format of an Accept header (RFC 9110, 12.5.1) that weighs most; else the text."""
    best = {TEXT: 0.0, OPENMETRICS: 0.0}
    for wanted in accept.split(","):
        kind, *parameters = (part.strip() for part in wanted.lower().split(";"))
        given = {
            name: value.strip('" ') for name, _, value in (p.partition("=") for p in parameters)
        }
        weight = _weight(given.get("q", "1"))
        if kind in _TEXTS:
            best[TEXT] = max(best[TEXT], weight)
        elif kind == "application/openmetrics-text" and _OPENMETRICS_1.fullmatch(
            given.get("version", "")
        ):
            best[OPENMETRICS] = max(best[OPENMETRICS], weight)
    return OPENMETRICS if best[OPENMETRICS] > 0 and best[OPENMETRICS] >= best[TEXT] else TEXT


def _weight(written: str) -> float:
    """Return a quality value; what is none weighs nothing."""
    try:
        weight = float(written)
    except ValueError:
        return 0.0
    return weight if math.isfinite(weight) and 0 <= weight <= 1 else 0.0
