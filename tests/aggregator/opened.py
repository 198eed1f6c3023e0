"""The API on a TCP port of this machine, with records and callers that a test names."""

import contextlib
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from flowvis.aggregator.api.application import ApiStats, Application
from flowvis.aggregator.api.door import Authenticator, TcpDoor
from flowvis.aggregator.api.latest import LatestRecords
from flowvis.aggregator.api.limits import CallerLimits
from flowvis.aggregator.api.listeners import TcpApi
from flowvis.aggregator.api.paths import (
    antrea,
    description,
    health,
    latest,
    live,
    session,
    sql,
    status,
    stream,
)
from flowvis.aggregator.api.queries import Answers
from flowvis.aggregator.api.reviews import Reviews
from flowvis.aggregator.api.routes import Route
from flowvis.aggregator.api.tokens import TokenFile
from flowvis.batch import Batch
from flowvis.inventory.sources.access import HOST, PORT, InCluster
from flowvis.lab.apiserver import ApiServer, service_account
from flowvis.transport.tls import TlsFiles, TlsReloader

from .records import records
from .served import query

ADMIN, SHOP, NOBODY = (f"{name}-0123456789abcdef" for name in ("admin", "shop", "nobody"))
"""Tokens: of who sees all, of who sees the namespace shop, of nobody."""

TOKENS = f"""\
# name and namespaces
{ADMIN} admin
{SHOP} sam shop
"""

FLOWS = records(
    {"sourceIP": "10.0.0.1", "sourcePodNamespace": "shop", "destinationPodNamespace": "back"},
    {"sourceIP": "10.0.0.2", "sourcePodNamespace": "back", "destinationPodNamespace": "shop"},
    {"sourceIP": "10.0.0.3", "sourcePodNamespace": "back", "destinationPodNamespace": "back"},
    {"sourceIP": "10.0.0.4", "sourcePodNamespace": "shopping", "sourcePodName": "shop"},
    {
        "sourceIP": "10.0.0.5",
        "sourceNodeName": "shop",
        "destinationServicePortName": "shop/web:http",
    },
    {"sourceIP": "10.0.0.6", "sourcePodNamespace": "SHOP"},
    {"sourceIP": "10.0.0.7"},
)
SHOPS = ["10.0.0.1", "10.0.0.2"]
"""Whose records have an end in the namespace shop."""


@dataclass
class Opened:
    """One API, and a client of it."""

    api: TcpApi
    door: TcpDoor
    stats: ApiStats
    history: LatestRecords
    http: aiohttp.ClientSession
    url: str

    async def ask(
        self, path: str, token: str = "", method: str = "GET", **arguments: Any
    ) -> tuple[int, Any]:
        """Return an answer's status and what it is: JSON, or text where it is none."""
        headers = arguments.pop("headers", {})
        if token:
            headers = headers | {"Authorization": f"Bearer {token}"}
        async with self.http.request(
            method, f"{self.url}{path}", headers=headers, **arguments
        ) as answer:
            if answer.content_type == "application/json":
                return answer.status, await answer.json()
            return answer.status, await answer.text()

    async def code(self, path: str, token: str = "", method: str = "GET", **arguments: Any) -> str:
        """Return an error's code, "" where there is none."""
        _, answer = await self.ask(path, token, method, **arguments)
        error = answer.get("error") if isinstance(answer, dict) else None
        return str(error["code"]) if error else ""


@contextlib.asynccontextmanager
async def opened(
    path: Path,
    *known: Authenticator,
    more: Sequence[Route] = (),
    limits: CallerLimits | None = None,
    live_flows: Batch = FLOWS,
    tls: TlsFiles | None = None,
    patient: bool = False,
    max_connections: int = 64,
    refused_s: float = 0.0,
) -> AsyncIterator[Opened]:
    """Open the API to the holders of TOKENS, or to whom `known` knows."""
    if not known:
        (path / "tokens").write_text(TOKENS)
        (path / "tokens").chmod(0o600)
        known = (TokenFile(path / "tokens"),)
    history, answers = LatestRecords(100), Answers(lambda: 2)
    history.put(FLOWS)

    async def end() -> None:
        history.close()
        await answers.close()

    def flows() -> Iterator[Batch]:
        for first in range(0, len(live_flows), live.AT_ONCE):
            yield live_flows.take(slice(first, first + live.AT_ONCE))

    door = TcpDoor(known, secure=tls is not None)
    stats = ApiStats()
    routes = [
        *health.routes(lambda: ""),
        *session.routes(),
        *session.browser_routes(door),
        *status.routes(lambda: {"version": "1"}, lambda: {"balanced": True, "stages": []}),
        *latest.routes(history),
        *stream.routes(history),
        *live.routes(flows),
        *sql.routes(query, answers),
        *antrea.routes(flows, lambda: {"numFlows": len(live_flows)}),
        *more,
    ]
    routes += description.routes(list(routes))
    application = Application(routes, door, stats, limits)
    reloader = TlsReloader(tls, make=tls.https_context) if tls else None
    api = TcpApi(
        "127.0.0.1",
        0,
        application,
        door,
        end,
        certificates=reloader,
        patient=patient,
        max_connections=max_connections,
        refused_s=refused_s,
    )
    await api.start()
    scheme = "https" if tls else "http"
    try:
        jar = aiohttp.CookieJar(unsafe=True)  # of addresses as well
        async with aiohttp.ClientSession(cookie_jar=jar) as http:
            url = f"{scheme}://127.0.0.1:{api.port}"
            yield Opened(api, door, stats, history, http, url)
    finally:
        await api.stop()


@contextlib.asynccontextmanager
async def reviewing(
    path: Path,
    server: ApiServer,
    namespaces: Callable[[], Sequence[str]] = lambda: ("shop", "back"),
    **more: Any,
) -> AsyncIterator[tuple[Opened, Reviews]]:
    """Open the API to whom a stand-in of a cluster's API server knows."""
    await server.start()
    account = service_account(path / "account", "own", b"")

    class Plain(InCluster):
        """As a Pod's access, without TLS."""

        def __init__(self) -> None:
            super().__init__({HOST: server.host, PORT: str(server.port)}, account)
            self.url = server.url

        def context(self) -> None:  # type: ignore[override]
            return None

    reviews = Reviews(Plain, namespaces, **more)
    try:
        async with opened(path, reviews) as it:
            yield it, reviews
    finally:
        await server.stop()
