"""The API, put together from the settings: its listeners, and who may come through each."""

import os
from collections.abc import Callable, Iterable, Sequence

from prometheus_client import CollectorRegistry

from flowvis.aggregator.api.application import ApiStats, Application, LocalDoor
from flowvis.aggregator.api.certificate import certificates
from flowvis.aggregator.api.control import control_path
from flowvis.aggregator.api.door import Authenticator, TcpDoor
from flowvis.aggregator.api.limits import CallerLimits
from flowvis.aggregator.api.listeners import ControlSocket, Ending, TcpApi
from flowvis.aggregator.api.paths import description, session
from flowvis.aggregator.api.reviews import Reviews
from flowvis.aggregator.api.routes import Route
from flowvis.aggregator.api.tokens import TokenFile
from flowvis.aggregator.settings import AggregatorSettings
from flowvis.runtime.metrics import StatsCollector
from flowvis.transport.tls import TlsFiles


class Api:
    """The control socket, and TCP where there is somebody to say who asks."""

    def __init__(
        self,
        settings: AggregatorSettings,
        routes: Sequence[Route],
        ending: Ending,
        *,
        namespaces: Callable[[], Iterable[str]],
        cluster: Callable[[], str],
        exporters: TlsFiles | None,
        names: Sequence[str],
    ) -> None:
        """`namespaces` are the cluster's now, `cluster` is its id.

        `exporters` has the certificate that these meet; `names` are for one that has to be made.
        """
        self._settings = settings
        self._stats = ApiStats()
        self._reviews = self._made_reviews(namespaces, cluster)
        everywhere = [*session.routes(), *routes]
        path = control_path(settings.control_socket, os.environ)
        described = [*everywhere, *description.routes(everywhere)]
        local = Application(described, LocalDoor(), self._stats)
        self._socket = ControlSocket(path, local, ending)
        self._tcp = self._made_tcp(everywhere, ending, exporters, names)

    @property
    def components(self) -> list[ControlSocket | TcpApi]:
        """What is to be started."""
        return [self._socket] if self._tcp is None else [self._socket, self._tcp]

    @property
    def routes(self) -> list[Route]:
        """What is answered on every listener."""
        return list(self._socket.application.routes)

    @property
    def port(self) -> int | None:
        """The TCP port, None where there is none."""
        return None if self._tcp is None else self._tcp.port

    def register(self, registry: CollectorRegistry, prefix: str) -> None:
        """Have everything that is counted in a registry."""
        registry.register(StatsCollector(prefix, self._stats))
        if self._tcp is not None:
            registry.register(StatsCollector(prefix, self._tcp.connections.stats))
        if self._reviews is not None:
            registry.register(StatsCollector(prefix, self._reviews.stats))

    def _made_reviews(
        self, namespaces: Callable[[], Iterable[str]], cluster: Callable[[], str]
    ) -> Reviews | None:
        inventory = self._settings.inventory
        if not inventory.kubernetes.wanted(inventory.files):
            return None
        return Reviews(inventory.kubernetes.access, namespaces, cluster=cluster)

    def _made_tcp(
        self,
        routes: Sequence[Route],
        ending: Ending,
        exporters: TlsFiles | None,
        names: Sequence[str],
    ) -> TcpApi | None:
        chosen = self._settings.api_server
        if not chosen.wanted(kubernetes=self._reviews is not None):
            return None
        known: list[Authenticator] = []
        if chosen.token_file is not None:
            known.append(TokenFile(chosen.token_file))
        if self._reviews is not None:
            known.append(self._reviews)
        door = TcpDoor(known, secure=chosen.tls)
        served = [*routes, *session.browser_routes(door)]
        application = Application(
            [*served, *description.routes(served)],
            door,
            self._stats,
            CallerLimits(chosen.requests_per_second, chosen.max_concurrent),
        )
        return TcpApi(
            chosen.address,
            chosen.api_port,
            application,
            door,
            ending,
            certificates=certificates(chosen, exporters, names),
            patient=self._settings.certificates.issue,
            max_connections=chosen.max_connections,
        )
