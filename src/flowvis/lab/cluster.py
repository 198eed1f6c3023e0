"""The lab's control plane: a stand-in API server, and what kubelets do with its objects.

The daemons find it as Pods do: by the service account that the kubelet mounts.
"""

import base64
import binascii
import ssl
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from flowvis.aggregator.certificates.authority import BUNDLE, CERTIFICATE, KEY
from flowvis.errors import SystemRefused
from flowvis.inventory.sources.access import HOST, PORT, SERVICE_ACCOUNT
from flowvis.lab import inventory
from flowvis.lab.apiserver import OPTIONAL, ApiServer, service_account
from flowvis.lab.configuration import MOUNTED, NAMES, ROOM
from flowvis.lab.isolation import RUN
from flowvis.lab.plan import CONTROL_ADDRESSES, PODS, LabPod
from flowvis.transport.certificates import Issued, issue_ca, issue_server, read_issued, replace_file

API_PORT = 6443
TOKEN = "of the lab"  # noqa: S105  it opens nothing else
ENVIRONMENT = {HOST: CONTROL_ADDRESSES[0], PORT: str(API_PORT)}
"""What the kubelet tells a container of the API server."""


class ControlPlane:
    """The API server and its objects; it lives in the lab's own process."""

    def __init__(self) -> None:
        served: dict[str, set[str]] = {}
        for resource in OPTIONAL:
            for version, _ in resource.paths():
                served.setdefault(version, set()).add(resource.plural)
        self.server = ApiServer(
            tokens={TOKEN}, served=served, host=CONTROL_ADDRESSES[0], port=API_PORT
        )

    async def start(self, now: datetime) -> None:
        """Have all objects but the certificates, and answer."""
        account = SERVICE_ACCOUNT.resolve()
        if not account.is_relative_to(RUN):
            raise SystemRefused(f"{SERVICE_ACCOUNT} is not below {RUN} on this system")
        ca = issue_ca("flowvis lab")
        certificate, key = issue_server(ca, CONTROL_ADDRESSES).write(ROOM, "apiserver")
        self.server.tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.server.tls.load_cert_chain(certificate, key)
        service_account(account, TOKEN, ca.certificate_pem())
        for item in inventory.objects(now):
            self.server.put(item, item["apiVersion"])
        await self.server.start()

    def seat(self, *, heirs: bool) -> None:
        """Let the heirs have their addresses, or the Pods before them."""
        now = datetime.now(UTC)
        for pod in PODS:
            if pod.heir_of is not None:
                leaving, coming = (pod.heir_of, pod) if heirs else (pod, pod.heir_of)
                if self._has(leaving):
                    self.server.remove(inventory.pod_object(leaving, now))
                if not self._has(coming):
                    self.server.put(inventory.pod_object(coming, now))

    def _has(self, pod: LabPod) -> bool:
        return ("v1", "pods", pod.namespace, pod.name) in self.server.objects

    def certificates(self) -> dict[str, bytes]:
        """Return the exporters' files by name, as far as the objects for them are there."""
        published = self._find("configmaps", NAMES.ca_config_map)
        secret = self._find("secrets", NAMES.client_secret)
        files = {BUNDLE: str(published[BUNDLE]).encode()} if BUNDLE in published else {}
        for name in (CERTIFICATE, KEY):
            try:
                files[name] = base64.b64decode(secret[name], validate=True)
            except (KeyError, binascii.Error):
                continue
        return files

    def authority(self) -> Issued:
        """Return the cluster's CA, with its key."""
        secret = self._find("secrets", NAMES.ca_secret)
        files = {name: base64.b64decode(secret[name]) for name in (CERTIFICATE, KEY)}
        return read_issued(files[CERTIFICATE], files[KEY])

    def mount(self, files: Mapping[str, bytes] | None = None) -> None:
        """Put the exporters' certificates where they look for them, as a kubelet does.

        `files`: others in their place.
        """
        MOUNTED.mkdir(exist_ok=True)
        for name, data in (files or self.certificates()).items():
            replace_file(MOUNTED / name, data, 0o600)

    def remove(self, kind: str, name: str) -> None:
        """Delete one of the certificates' objects."""
        self.server.remove({"kind": kind, "metadata": {"namespace": NAMES.namespace, "name": name}})

    def _find(self, plural: str, name: str) -> Mapping[str, Any]:
        found = self.server.objects.get(("v1", plural, NAMES.namespace, name), {})
        data: Mapping[str, Any] = found.get("data") or {}
        return data
