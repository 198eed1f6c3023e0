"""Keeps a cluster's certificates: objects in the API, and the server's own files.

The server takes its certificate and the CAs from files and looks at them every few seconds, as it
does with mounted ones; sessions outlive a change.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from flowvis.aggregator.certificates.authority import (
    Authority,
    Found,
    Names,
    decide,
    renewed_server,
)
from flowvis.counts import count
from flowvis.errors import ApiError, SystemRefused
from flowvis.inventory.sources.access import Access
from flowvis.inventory.sources.written import WrittenObjects
from flowvis.runtime.backoff import Backoff
from flowvis.runtime.component import end, spawn
from flowvis.runtime.logs import LimitedLog
from flowvis.transport.certificates import Issued, replace_file
from flowvis.transport.tls import TlsFiles

log = logging.getLogger(__name__)

MAX_STEPS = 20  # writes and lost races of one look; three objects need three


@dataclass
class CertificateStats:
    """What was written."""

    writes: int = count("Certificate objects written")
    conflicts: int = count("Certificate objects that another replica wrote first")
    failures: int = count("Looks at the certificate objects that failed")
    issued: int = count("Server certificates issued")


class Certificates:
    """Start it before the server: its files are there when `start` returns."""

    name = "certificates"

    def __init__(
        self,
        access: Callable[[], Access],
        names: Names,
        files: TlsFiles,
        server_names: Sequence[str],
        *,
        look_s: float,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.stats = CertificateStats()
        self._objects = WrittenObjects(access)
        self._names, self._files = names, files
        self._server_names = tuple(server_names)
        self._look_s, self._now = look_s, now
        self._issued: Issued | None = None
        self._bundle = ""
        self._limited = LimitedLog(log)
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Wait for the API server as long as it takes; nothing works without certificates."""
        self._objects.open()
        try:
            await self._first_look()
        except BaseException:
            await self._objects.close()
            raise
        self._task = spawn(self.name, self._keep())

    async def stop(self) -> None:
        """Look no more."""
        await end(self._task)
        await self._objects.close()

    async def _first_look(self) -> None:
        backoff = Backoff()
        while True:
            if await self._look():
                return
            await asyncio.sleep(backoff.wait_s())

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(self._look_s)
            try:
                await self._look()
            except SystemRefused as error:  # what the server has is good for months
                self._failed("files", error)

    async def _look(self) -> bool:
        """Bring the objects and files up to date; False where that failed."""
        try:
            authority = await self._settle()
        except ApiError as error:
            self._failed("api", error)
            return False
        self._write(authority)
        return True

    def _failed(self, what: str, error: Exception) -> None:
        self.stats.failures += 1
        self._limited.log(logging.WARNING, what, "certificates: %s; trying again", error)

    async def _settle(self) -> Authority:
        """Write objects until all are as they should be."""
        for _ in range(MAX_STEPS):
            step = decide(await self._found(), self._names, self._now())
            if isinstance(step, Authority):
                return step
            collection = self._list(step.item["kind"])
            if await self._objects.write(collection, step.item, creates=step.creates):
                self.stats.writes += 1
                log.info("certificates: %s", step.reason)
            else:
                self.stats.conflicts += 1
        raise ApiError(
            f"namespace {self._names.namespace}: {MAX_STEPS} writes did not settle the "
            "certificates: does something else write the same Secrets?"
        )

    async def _found(self) -> Found:
        names = self._names
        return Found(
            await self._objects.get(self._list("Secret"), names.ca_secret),
            await self._objects.get(self._list("ConfigMap"), names.ca_config_map),
            await self._objects.get(self._list("Secret"), names.client_secret),
        )

    def _write(self, authority: Authority) -> None:
        """Write what changed; the server reads all three together again where it met halves."""
        issued = renewed_server(self._issued, authority.signing, self._server_names, self._now())
        ca, certificate, key = self._files.ca, self._files.certificate, self._files.key
        if not (isinstance(ca, Path) and isinstance(certificate, Path) and isinstance(key, Path)):
            raise TypeError("a server has all three files")
        try:
            ca.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if authority.bundle != self._bundle:
                replace_file(ca, authority.bundle.encode(), 0o644)
                self._bundle = authority.bundle
            if issued is not self._issued:
                replace_file(key, issued.key_pem(), 0o600)
                replace_file(certificate, issued.certificate_pem(), 0o644)
                self.stats.issued += 1
                self._issued = issued
        except OSError as error:
            raise SystemRefused(
                f"{ca.parent}: cannot write certificates: {error.strerror}; with "
                "certificates.issue, tls.* name files of a directory of the aggregator's own"
            ) from error

    def _list(self, kind: str) -> str:
        return f"/api/v1/namespaces/{self._names.namespace}/{kind.lower()}s"
