"""How long people wait for the console's pages, over a day of records and a week of roll-ups.

What is in the store `week` says. Each page's questions are asked one after the other as the API
asks them, over ranges that end at different moments; the numbers are those of the slowest
twentieth.
"""

import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from benchmarks import week
from benchmarks.cluster_hour import HOUR_MS
from benchmarks.week import BEGIN_MS, END_MS, HOURS, RECORDS, STORED
from flowvis.clickhouse.embedded import EmbeddedStore
from flowvis.clickhouse.statement import COMPOSED_LENGTH, bind
from flowvis.filters import parse
from flowvis.filters.sql import condition
from flowvis.questions.completeness import completeness
from flowvis.questions.graph import GraphQuestion
from flowvis.questions.pages import PageQuestion
from flowvis.questions.statement import COMPOSED_ROWS, Found, Plan
from flowvis.questions.table import TableQuestion

RANGES = {"1h": 1, "6h": 6, "24h": 24, "7d": 168}
REPEATS = {"1h": 8, "6h": 5, "24h": 3, "7d": 2}
SHOWN = (
    "flowEndSeconds,sourcePodNamespace,sourcePodName,sourceIP,destinationPodNamespace,"
    "destinationPodName,destinationIP,destinationTransportPort,protocolIdentifier,"
    "destinationServicePortName,flowType,octetDeltaCount,reverseOctetDeltaCount,"
    "ingressNetworkPolicyRuleAction,egressNetworkPolicyRuleAction"
)

Kind = type[TableQuestion] | type[GraphQuestion] | type[PageQuestion]
Asked = tuple[Kind, Mapping[str, str]]
PAGES: dict[str, tuple[Asked, ...]] = {
    "overview": (
        (TableQuestion, {"measure": "bothOctets,records", "interval": "auto"}),
        (TableQuestion, {"measure": "octets,connections,denied"}),
        (TableQuestion, {"by": "src.workload", "limit": "10"}),
        (TableQuestion, {"by": "dst.policy", "measure": "denied", "filter": "verdict = denied"}),
    ),
    "map": (
        (GraphQuestion, {"source": "src.namespace", "target": "dst.namespace"}),
        (GraphQuestion, {}),
        (TableQuestion, {"filter": "workload = team-05/web-029", "interval": "auto"}),
    ),
    "flows": (
        (PageQuestion, {"columns": SHOWN}),
        (PageQuestion, {"columns": SHOWN, "filter": "namespace = team-05 and dst.port = 8003"}),
    ),
    "explore": (
        (TableQuestion, {"by": "src.workload", "limit": "10", "interval": "auto"}),
        (TableQuestion, {"by": "src.namespace,dst.namespace", "limit": "20"}),
        (TableQuestion, {"by": "dst.ip", "filter": "type = to-external", "limit": "20"}),
    ),
}
"""The questions of each page, with the parameters that the console gives them."""


def run(store: str = "") -> dict[str, Any]:
    """Measure the pages over the store that a directory keeps; "": over one made for it."""
    began = time.monotonic()
    with week.opened(store) as filled:
        filled_s = time.monotonic() - began
        began, cpu = time.monotonic(), time.process_time()
        measured = measure(filled)
        return {
            "records": HOURS * RECORDS,
            "cpu_seconds": round(time.process_time() - cpu, 3),
            "wall_seconds": round(time.monotonic() - began, 3),
            "fill_seconds": round(filled_s, 1),
            **measured,
        }


def measure(store: EmbeddedStore) -> dict[str, Any]:
    """Ask each page's questions over each range; the 95th percentiles, in ms."""
    found: dict[str, float] = {}
    for name, hours in RANGES.items():
        times: list[float] = []
        for page, questions in PAGES.items():
            of_page = [
                _ask(store, kind, parameters, hours, repeat)
                for repeat in range(REPEATS[name])
                for kind, parameters in questions
            ]
            found[f"{page}_p95_ms_{name}"] = _p95(of_page)
            times += of_page
        found[f"p95_ms_{name}"] = _p95(times)
    return found


def _p95(times_s: list[float]) -> float:
    return round(float(np.percentile(times_s, 95)) * 1000, 1)


def _ask(
    store: EmbeddedStore, kind: Kind, parameters: Mapping[str, str], hours: int, repeat: int
) -> float:
    """Return how long an answer took, with what the books say of its range."""
    end_ms = END_MS - repeat * 7 * 60_000  # so that nothing is the same question again
    span = {"from": str(max(end_ms - hours * HOUR_MS, BEGIN_MS)), "to": str(end_ms)}
    began = time.monotonic()
    chosen = condition(parse(parameters.get("filter", "")))
    question = kind.parse({**parameters, **span}, chosen, end_ms, STORED)
    _carry_out(store, question.plan())
    _carry_out(store, completeness(question.records.range))
    return time.monotonic() - began


def _carry_out(store: EmbeddedStore, plan: Plan[Any]) -> None:
    try:
        statement = next(plan)
        while True:
            sql = bind(statement.text, statement.parameters)
            result = store.ask(sql, max_rows=COMPOSED_ROWS, max_length=COMPOSED_LENGTH).result()
            statement = plan.send(Found(result.rows, result.types))
    except StopIteration:
        return
