"""Faults by numbers: many exporters come to the aggregator at one time."""

import asyncio
import sys
from typing import TYPE_CHECKING

from flowvis.errors import SystemRefused
from flowvis.lab import crowd
from flowvis.lab.faults.fault import Fault
from flowvis.transport.certificates import replace_file

if TYPE_CHECKING:
    from flowvis.lab.session import Lab

EXPORTERS = 200
TAKEN_S = 60.0


async def come(lab: "Lab") -> None:
    """Let them all connect at once, and look for what they say in the store."""
    crowd.FILES.mkdir()
    for name, data in lab.cluster.certificates().items():
        replace_file(crowd.FILES / name, data, 0o600)
    many = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", crowd.__name__, str(EXPORTERS)), stderr=asyncio.subprocess.DEVNULL
    )
    try:
        async with asyncio.timeout(TAKEN_S):
            code = await many.wait()
    except TimeoutError:
        many.kill()
        what = f"has not acknowledged all of {EXPORTERS} exporters in {TAKEN_S:g} s"
        raise SystemRefused(lab.aggregator.complain(what)) from None
    if code:
        raise SystemRefused(f"{EXPORTERS} exporters ended with {code}")
    rows, truth = await lab.ask(crowd.QUESTION), crowd.truth(EXPORTERS)
    stored = crowd.Sums(*(int(str(value)) for value in rows[0])) if rows else crowd.Sums()
    if stored != truth:
        raise SystemRefused(f"{EXPORTERS} exporters: {stored} in the store, not {truth}")


# A table reads best as one.
# fmt: off
FAULTS = {
    "many-exporters": Fault(f"{EXPORTERS} more exporters connect at one time", come, 0.3,
                            by_sums=True, aggregator={"listen": {"maxSessionAge": "1h"}}),
}
# fmt: on
