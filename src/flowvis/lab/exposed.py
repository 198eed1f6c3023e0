"""The aggregator's metrics out of flows against its store: sums of the same records."""

import asyncio
import json

from flowvis.aggregator.destinations.flow_series import BEGINNING_S
from flowvis.lab.processes import FLOWCTL, DaemonProcess

MEASURES = {
    "bytes": "octets",
    "reverse_bytes": "reverseOctets",
    "packets": "packets",
    "reverse_packets": "reversePackets",
    "connections": "connections",
    "denied": "denied",
}
"""By metric (`flowvis_flow_<name>_total`), the measure of questions that it is the sum of."""
WITHIN_S = BEGINNING_S + 20.0
LOOK_S = 0.5
COMMAND = (*FLOWCTL, "top", "--by", "protocol", "--measure", ",".join(MEASURES.values()))


async def differences(aggregator: DaemonProcess) -> list[str]:
    """Return in what the metrics are not the store's sums, once it has what was written."""
    clock = asyncio.get_running_loop().time
    deadline = clock() + WITHIN_S
    while True:
        stored = await _stored()
        wrong = []
        for name, of in zip(MEASURES, stored, strict=True):
            metric = f"flowvis_flow_{name}_total"
            exposed = await aggregator.metric(metric)
            if exposed != of:
                wrong.append(f"{metric}: {exposed:.0f}, and {of} in the store")
        if not wrong or clock() > deadline:
            return wrong
        await asyncio.sleep(LOOK_S)


async def _stored() -> list[int | None]:
    """Return the store's sums, in the order of `MEASURES`; None where it does not answer."""
    process = await asyncio.create_subprocess_exec(
        *COMMAND, "--since", "1h", "-o", "json",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    answer, _ = await process.communicate()
    if process.returncode:
        return [None] * len(MEASURES)
    total: list[int | None] = json.loads(answer)["total"]
    return total
