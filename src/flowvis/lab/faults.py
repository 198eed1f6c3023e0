"""What can go wrong in the middle of a run, on demand; nothing may be lost or wrong for it."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flowvis.aggregator.certificates.authority import KEY
from flowvis.errors import SystemRefused
from flowvis.lab.apiserver import CORE, OPTIONAL
from flowvis.lab.configuration import NAMES
from flowvis.lab.processes import DaemonProcess

if TYPE_CHECKING:
    from flowvis.lab.session import Lab

RESTORED_S = 15.0  # the aggregator looks each second
RENEWED_S = 30.0  # sessions last for seconds; a new one may need several attempts
LOOK_S = 0.2
AWAY = 0.25  # of the run: back before Pods come and go


@dataclass(frozen=True)
class Fault:
    """A fault; `begin` says when, as a part of the run."""

    about: str
    run: Callable[["Lab"], Awaitable[None]] | None = None
    """None: it is the traffic of the scenarios that name it."""
    begin: float = 0.5
    splits: bool = False
    """The aggregator is replaced: the halves of a connection may be stored side by side."""
    deafens: bool = False
    """An exporter is away: what only events and logs tell is not observed meanwhile."""


async def _restart_aggregator(lab: "Lab") -> None:
    await lab.restart([lab.aggregator])


async def _restart_exporters(lab: "Lab") -> None:
    await lab.restart(lab.exporters)


async def _stop_api_server(lab: "Lab") -> None:
    await lab.cluster.server.stop()
    await asyncio.sleep(AWAY * lab.duration_s)
    await lab.cluster.server.start()


async def _expire_watches(lab: "Lab") -> None:
    server = lab.cluster.server
    server.forget()
    for resource in (*CORE, *OPTIONAL):
        for version, _ in resource.paths():
            server.break_off(resource.kind, 410, version)


async def _delete_secret(lab: "Lab") -> None:
    before = lab.cluster.certificates()
    lab.cluster.remove("Secret", NAMES.client_secret)
    await _renewed(lab, before, "the exporters' Secret")
    lab.cluster.mount()
    await _reconnected(lab)


async def _replace_ca(lab: "Lab") -> None:
    before = lab.cluster.certificates()
    lab.cluster.remove("Secret", NAMES.ca_secret)
    lab.cluster.remove("Secret", NAMES.client_secret)
    lab.cluster.remove("ConfigMap", NAMES.ca_config_map)
    await _renewed(lab, before, "the CA")
    lab.cluster.mount()
    await _reconnected(lab)


async def _renewed(lab: "Lab", before: dict[str, bytes], what: str) -> None:
    """Wait until all of the exporters' files are there, and another key is among them."""

    async def renewed() -> bool:
        found = lab.cluster.certificates()
        return found.keys() == before.keys() and found[KEY] != before[KEY]

    await _until(renewed, RESTORED_S, lab.aggregator, f"has not restored {what}")


async def _reconnected(lab: "Lab") -> None:
    """Wait until every exporter has begun another session: with what is mounted now."""
    before = await lab.sessions()

    async def reconnected() -> bool:
        return len(await lab.sessions() - before) >= len(lab.exporters)

    await _until(reconnected, RENEWED_S, lab.aggregator, "has no new sessions")


async def _until(
    condition: Callable[[], Awaitable[bool]], within_s: float, daemon: DaemonProcess, what: str
) -> None:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within_s
    while not await condition():
        if loop.time() > deadline:
            raise SystemRefused(daemon.complain(f"{what} in {within_s:g} s"))
        await asyncio.sleep(LOOK_S)


# A table reads best as one.
# fmt: off
FAULTS = {
    "restart-aggregator": Fault("ended by SIGTERM and started again", _restart_aggregator,
                                splits=True),
    "restart-exporters": Fault("ended by SIGTERM and started again, on all nodes",
                               _restart_exporters, deafens=True),
    "api-server": Fault("the API server is away for a quarter of the run", _stop_api_server, 0.05),
    "expired-watch": Fault("every watch ends and its version is forgotten", _expire_watches, 0.4),
    "secret": Fault("the Secret with the exporters' certificate is deleted", _delete_secret, 0.3),
    "ca": Fault("the CA and all that it signed are deleted", _replace_ca, 0.3),
    "flood": Fault("10,000 packets a second that a policy denies"),
}
# fmt: on
