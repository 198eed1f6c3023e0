"""The way to an aggregator in a cluster: a kubeconfig's API server forwards a port of its Pod.

Whoever answers behind the port shows a certificate of the CA that the aggregator publishes, before
it gets the token: that of the kubeconfig's user, if no other is given.
"""

import http.client
import os
import ssl
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowvis.cli.client import CONNECT_S, FORBIDDEN, MISSING, UNAUTHENTICATED, bearing
from flowvis.cli.tunnel import Tunnel
from flowvis.errors import ApiError, FlowvisError, SettingsError, SystemRefused
from flowvis.inventory.sources.access import client_configuration
from flowvis.runtime.extras import extra
from flowvis.runtime.trust import trusting_only

NAME = "flow-aggregator"
LABEL = f"app.kubernetes.io/name={NAME}"
CA_CONFIG_MAP, CA_KEY = "flow-aggregator-ca", "ca.crt"
PORT_NAME, PORT = "api", 10348


@dataclass(frozen=True)
class _Found:
    """Where an aggregator is, and whom to trust there."""

    pod: str
    port: int
    trusted: ssl.SSLContext


class Cluster:
    """The way to the aggregator of a cluster."""

    def __init__(
        self, kubeconfig: Path | None, context: str | None, namespace: str, token: str
    ) -> None:
        """Read the kubeconfig; SettingsError where it cannot be used or has no such context."""
        self.namespace = namespace
        self._kubeconfig, self._context = kubeconfig, context
        self._configuration, self._core = self._read()
        self._given_token = token
        self._found: _Found | None = None
        self._looking = threading.Lock()  # a console asks for much at once
        host = self._configuration.host
        self.where = f"the flow-aggregator in namespace {namespace} of {host}"
        self.distrust = f"it is not of the CA in the ConfigMap {namespace}/{CA_CONFIG_MAP}"
        self.remedy = "is its apiServer.enable on, and may you forward ports of its Pod?"

    def _read(self) -> tuple[Any, Any]:
        """Read the kubeconfig; return the client's configuration and the client."""
        with extra("people", "--context"):
            from kubernetes import client

        try:
            configuration = client_configuration(self._kubeconfig, self._context)
        except ValueError as error:
            where = self._kubeconfig or os.environ.get("KUBECONFIG") or "~/.kube/config"
            raise SettingsError([f"kubeconfig {where}: {error}"]) from error
        configuration.retries = False
        return configuration, client.CoreV1Api(client.ApiClient(configuration))

    @property
    def server_name(self) -> str:
        """The name that is in its certificate."""
        return f"{NAME}.{self.namespace}.svc"

    def headers(self) -> Mapping[str, str]:
        """Return the token; that of the kubeconfig's user where none was given.

        SystemRefused where the user has none: a certificate is for the API server alone.
        """
        if self._given_token:
            return bearing(self._given_token)
        scheme, _, found = self._authorization().partition(" ")
        if scheme != "Bearer" or not found:
            raise SystemRefused(
                "the kubeconfig's user has no token, and its certificate is for the API server "
                "alone: give one with --token-file (kubectl create token SERVICEACCOUNT), or ask "
                f"in the Pod: kubectl -n {self.namespace} exec deploy/{NAME} -- flowctl ..."
            )
        return bearing(found)

    def _authorization(self) -> str:
        """Return the header that says to the API server who we are; "" where a certificate does."""
        try:
            settings = self._configuration.auth_settings()
        except Exception as error:  # login plugins fail in their own ways
            raise SystemRefused(f"kubeconfig: no token: {error}") from error
        return str(settings.get("BearerToken", {}).get("value") or "")

    def connection(self, timeout_s: float | None) -> http.client.HTTPConnection:
        """Return a connection through a forwarded port. SystemRefused says what is not there."""
        return _Forwarded(self, timeout_s)

    def session(self) -> tuple[Tunnel, ssl.SSLSocket]:
        """Begin TLS with the aggregator at the end of a tunnel.

        Who asks for long outlives what it found: the Pod is replaced, another replica receives, the
        CA is the next one, the token has ended. So what leads nowhere is looked for once more.
        """
        known = self._found
        if known is not None:
            with suppress(FlowvisError, OSError):
                return self._session(known)
        return self._session(self._find(known))

    def _find(self, before: _Found | None) -> _Found:
        """Look for it, as something else was `before`; what another thread found since will do."""
        with self._looking:
            if self._found is before or self._found is None:
                self._found = None
                try:
                    self._found = self._looked_for()
                except ApiError as error:
                    if error.status != UNAUTHENTICATED:
                        raise
                    self._configuration, self._core = self._read()
                    self._found = self._looked_for()
            return self._found

    def _looked_for(self) -> _Found:
        return _Found(*self._pod(), self._trusted())

    def _session(self, found: _Found) -> tuple[Tunnel, ssl.SSLSocket]:
        tunnel = self._tunnel(found)
        tunnel.sock.settimeout(CONNECT_S)
        try:
            return tunnel, found.trusted.wrap_socket(tunnel.sock, server_hostname=self.server_name)
        except OSError as error:
            tunnel.sock.close()
            tunnel.join()
            if tunnel.problem:
                raise SystemRefused(
                    f"Pod {self.namespace}/{found.pod} takes nothing on port {found.port}: "
                    f"{tunnel.problem}"
                ) from error
            raise

    def _tunnel(self, found: _Found) -> Tunnel:
        """Have the port of the API forwarded."""
        from kubernetes.stream import ws_client

        websockets: Any = ws_client
        known = self._authorization()
        headers = {"authorization": known} if known else {}
        path = f"/api/v1/namespaces/{self.namespace}/pods/{found.pod}/portforward"
        with self._asking(f"forward port {found.port} of Pod {self.namespace}/{found.pod}"):
            url = websockets.get_websocket_url(
                f"{self._configuration.host}{path}", [("ports", found.port)]
            )
            return Tunnel(websockets.create_websocket(self._configuration, url, headers))

    def _pod(self) -> tuple[str, int]:
        """Find the Pod that is ready, and the port of its API."""
        with self._asking(f"list the Pods of namespace {self.namespace}"):
            listed = self._core.list_namespaced_pod(
                self.namespace, label_selector=LABEL, _request_timeout=CONNECT_S
            )
        pods = listed.items
        running = [pod for pod in pods if pod.status.phase == "Running"]
        # One that is being deleted says that it is ready as long as it goes on stopping.
        staying = [pod for pod in running if pod.metadata.deletion_timestamp is None]
        ready = [pod for pod in staying if _ready(pod.status.conditions or ())]
        for pod in (*ready, *staying, *running):
            ports = [
                port.container_port
                for container in pod.spec.containers
                for port in container.ports or ()
                if port.name == PORT_NAME
            ]
            return pod.metadata.name, ports[0] if ports else PORT
        found = "no Pod of it runs" if pods else "there is none"
        raise SystemRefused(
            f"{self.where}: {found} (Pods with {LABEL}); name its namespace with -n, before the "
            "command"
        )

    def _trusted(self) -> ssl.SSLContext:
        """Return whom to trust: the CA that the aggregator publishes."""
        name = f"{self.namespace}/{CA_CONFIG_MAP}"
        with self._asking(f"read the ConfigMap {name}, which has the aggregator's CA"):
            item = self._core.read_namespaced_config_map(
                CA_CONFIG_MAP, self.namespace, _request_timeout=CONNECT_S
            )
        text = (item.data or {}).get(CA_KEY, "")
        try:
            return trusting_only(text)
        except (ssl.SSLError, ValueError) as error:
            raise SystemRefused(f"ConfigMap {name}: no certificates in {CA_KEY}") from error

    @contextmanager
    def _asking(self, what: str) -> Iterator[None]:
        """Say what the API server refused, or that it does not answer."""
        from kubernetes.client.exceptions import ApiException
        from urllib3.exceptions import HTTPError
        from websocket import WebSocketBadStatusException, WebSocketException

        host = self._configuration.host
        try:
            yield
        except (ApiException, WebSocketBadStatusException) as error:
            answered = error.status if isinstance(error, ApiException) else error.status_code
            status = int(answered or 0)
            reason = {
                FORBIDDEN: f"you may not {what}: ask whoever gives rights in {host}",
                MISSING: f"cannot {what}: there is none",
            }.get(status, f"cannot {what}: {host} answers {status}")
            raise ApiError(reason, status) from error
        except (HTTPError, OSError, WebSocketException) as error:
            raise ApiError(f"the API server {host} does not answer: {error}") from error
        finally:
            self._core.api_client.rest_client.pool_manager.clear()  # nothing stays open


class _Forwarded(http.client.HTTPConnection):
    """HTTP in a session at the end of a tunnel."""

    def __init__(self, cluster: Cluster, timeout_s: float | None) -> None:
        super().__init__(cluster.server_name)
        self._cluster, self._answer_s = cluster, timeout_s
        self._tunnel: Tunnel | None = None

    def connect(self) -> None:
        self._tunnel, self.sock = self._cluster.session()
        self.sock.settimeout(self._answer_s)

    def close(self) -> None:
        super().close()
        if self._tunnel is not None:
            self._tunnel.join()


def _ready(conditions: Sequence[Any]) -> bool:
    return any(one.type == "Ready" and one.status == "True" for one in conditions)
