"""Faults of the API server, and of the objects that the daemons need of it."""

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING

from flowvis.aggregator.certificates.authority import CERTIFICATE, CLIENT_NAME, KEY
from flowvis.lab.apiserver import CORE, OPTIONAL
from flowvis.lab.configuration import NAMES
from flowvis.lab.faults.fault import pass_while_away, until
from flowvis.lab.plan import NODE_1
from flowvis.transport.certificates import issue_client

if TYPE_CHECKING:
    from flowvis.lab.session import Lab

RESTORED_S = 15.0  # the aggregator looks each second
ENDS_S = 2.0  # a session that began before goes on for its age, some seconds
RENEWED_S = 30.0  # sessions last for seconds; a new one may need several attempts


async def stop_api_server(lab: "Lab") -> None:
    """Let nobody answer.

    Who watches tries again after up to 0.5, 1, 2, ... s: longer, and of a short run some would be
    back only after Pods have come and gone.
    """
    await lab.cluster.server.stop()
    await pass_while_away(lab, 1 / 6)
    await lab.cluster.server.start()


async def expire_watches(lab: "Lab") -> None:
    """Answer every watch with 410."""
    server = lab.cluster.server
    server.forget()
    for resource in (*CORE, *OPTIONAL):
        for version, _ in resource.paths():
            server.break_off(resource.kind, 410, version)


async def delete_secret(lab: "Lab") -> None:
    """Delete the exporters' certificate."""
    before = lab.cluster.certificates()
    lab.cluster.remove("Secret", NAMES.client_secret)
    await _renewed(lab, before, "the exporters' Secret")
    lab.cluster.mount()
    await _reconnected(lab)


async def replace_ca(lab: "Lab") -> None:
    """Delete the CA and what it signed."""
    before = lab.cluster.certificates()
    lab.cluster.remove("Secret", NAMES.ca_secret)
    lab.cluster.remove("Secret", NAMES.client_secret)
    lab.cluster.remove("ConfigMap", NAMES.ca_config_map)
    await _renewed(lab, before, "the CA")
    lab.cluster.mount()
    await _reconnected(lab)


async def expire_certificate(lab: "Lab") -> None:
    """Mount a certificate that is about to end, then the right one when it has locked out a node.

    The Secret's own is never let end: the aggregator replaces it months before.
    """
    signing = lab.cluster.authority()
    ending = issue_client(signing, CLIENT_NAME, validity=timedelta(seconds=ENDS_S))
    lab.cluster.mount({CERTIFICATE: ending.certificate_pem(), KEY: ending.key_pem()})
    await asyncio.sleep(ENDS_S)
    hosts = [address if ":" not in address else f"[{address}]" for address in NODE_1.addresses]

    async def taken() -> bool:
        peers = [peer.partition("@")[2].rpartition(":")[0] for peer in await lab.sessions()]
        return any(host in hosts for host in peers)

    async def locked_out() -> bool:
        return not await taken()

    await until(locked_out, RENEWED_S, lab.aggregator, "takes an expired certificate")
    await pass_while_away(lab)
    lab.cluster.mount()

    await until(taken, RENEWED_S, lab.aggregator, "has no session with what replaced it")


async def _renewed(lab: "Lab", before: dict[str, bytes], what: str) -> None:
    """Wait until all of the exporters' files are there, and another key is among them."""

    async def renewed() -> bool:
        found = lab.cluster.certificates()
        return found.keys() == before.keys() and found[KEY] != before[KEY]

    await until(renewed, RESTORED_S, lab.aggregator, f"has not restored {what}")


async def _reconnected(lab: "Lab") -> None:
    """Wait until every exporter has begun another session: with what is mounted now."""
    before: set[str] | None = None

    async def reconnected() -> bool:
        nonlocal before
        found = await lab.sessions()
        before = found if before is None else before
        return len(found - before) >= len(lab.exporters)

    await until(reconnected, RENEWED_S, lab.aggregator, "has no new sessions")
