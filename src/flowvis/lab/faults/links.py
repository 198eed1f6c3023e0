"""Faults between exporters and aggregator: packets that are lost, and middleboxes that lie."""

from typing import TYPE_CHECKING

from flowvis.lab import links
from flowvis.lab.faults.fault import Action, Fault, again_and_again, pass_while_away
from flowvis.lab.relay import Behaviour

if TYPE_CHECKING:
    from flowvis.lab.session import Lab

FLAP_S = (0.2, 1.5)  # a TLS handshake, or some messages
DURING = (0.2, 0.7)  # of the run, of what comes and goes
CUT_BYTES = (300, 20_000)  # within the handshake, the templates, or a message
LATE_S = 1.5


def behaving(behaviour: Behaviour) -> Action:
    """Return a fault: relays treat all connections so, the present ones ended, for a while."""

    async def run(lab: "Lab") -> None:
        lab.links.behave(behaviour)
        if behaviour.refuses or not behaviour.reads:
            lab.links.cut()
        await pass_while_away(lab)
        lab.links.behave()

    return run


def losing(percent: int) -> Action:
    """Return a fault: so many of the packets to the aggregator and back are lost for a while."""

    async def run(lab: "Lab") -> None:
        links.lose(percent)
        await pass_while_away(lab)
        links.lose_nothing()

    return run


async def flap(lab: "Lab") -> None:
    """Reset all sessions again and again."""
    async for _ in again_and_again(lab, DURING, FLAP_S):
        lab.links.cut()


async def reset(lab: "Lab") -> None:
    """Reset sessions in the middle of what they send."""
    async for _ in again_and_again(lab, DURING, FLAP_S):
        lab.links.behave(Behaviour(cut_after=lab.random.randint(*CUT_BYTES)))
    lab.links.behave()


async def reorder(lab: "Lab") -> None:
    """Reset sessions, and deliver what they had sent when the next ones have begun."""
    lab.links.behave(Behaviour(delay_s=LATE_S))
    async for _ in again_and_again(lab, DURING, FLAP_S):
        lab.links.cut()
    lab.links.behave()


# A table reads best as one.
# fmt: off
FAULTS = {
    "collector-refuses": Fault("who connects to the aggregator is accepted, and closed",
                               behaving(Behaviour(refuses=True)), 0.3, by_sums=True, links=True),
    "collector-deaf": Fault("who connects to the aggregator is accepted, and nothing is read",
                            behaving(Behaviour(reads=False)), 0.3, by_sums=True, links=True),
    "collector-stalls": Fault("nothing moves between exporters and aggregator for a while",
                              behaving(Behaviour(passes=False)), 0.3, by_sums=True, links=True),
    "collector-delays": Fault("half a second each way between exporters and aggregator",
                              behaving(Behaviour(delay_s=0.5)), 0.3, by_sums=True, links=True),
    "collector-flaps": Fault("sessions with the aggregator are reset again and again", flap,
                             DURING[0], by_sums=True, links=True),
    "collector-resets": Fault("sessions are reset in the middle of a message", reset, DURING[0],
                              by_sums=True, links=True),
    "collector-reorders": Fault("what a session had sent arrives after the next one began",
                                reorder, DURING[0], by_sums=True, links=True),
    "link-cut": Fault("no packet gets from a node to the aggregator, or back", losing(100), 0.3,
                      by_sums=True),
    "link-loss": Fault("a fifth of the packets to the aggregator and back are lost",
                       losing(20), 0.3, by_sums=True),
}
# fmt: on
