"""What the configuration calls networks outside of the cluster."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from flowvis.addresses import Network, parse_network
from flowvis.aggregator.destinations.kind import Problems
from flowvis.filters.networks import MAX_NAMES, MAX_SQL, NetworkNames
from flowvis.runtime.settings import option

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9 ._/:+&@()-]{0,61}[A-Za-z0-9)])?")


@dataclass(frozen=True)
class NamedNetwork:
    """A name, and the networks that have it."""

    name: str = option(
        "",
        doc="What addresses in these networks are called where they are no Pods or nodes: 1 to 63 "
        "letters, digits, spaces and ._/:+&@()-; needed",
    )
    cidrs: tuple[str, ...] = option(
        (), doc="Networks of IPv4 and IPv6; of two that have an address the longer prefix counts"
    )

    def check(self) -> Problems:
        """Yield what is missing, or is no network."""
        if not _NAME.fullmatch(self.name):
            yield "name", f"{self.name!r:.80}: 1 to 63 letters, digits, spaces and ._/:+&@()-"
        if not self.cidrs:
            yield "cidrs", "is empty: name at least one network, as 203.0.113.0/24"
        for place, cidr in enumerate(self.cidrs):
            try:
                parse_network(cidr)
            except ValueError as error:
                yield f"cidrs[{place}]", str(error)

    def networks(self) -> Iterator[Network]:
        """Go through its networks; those that are none are left out."""
        for cidr in self.cidrs:
            try:
                yield parse_network(cidr)
            except ValueError:
                continue


def network_names(named: Sequence[NamedNetwork]) -> NetworkNames:
    """Return the names as filters and questions take them."""
    return NetworkNames((each.name, each.networks()) for each in named)


def problems(named: Sequence[NamedNetwork]) -> Problems:
    """Yield what does not go together among them."""
    names: set[str] = set()
    owners: dict[Network, str] = {}
    for place, each in enumerate(named):
        if each.name in names:
            problem = f"{each.name!r} is there already: list all its networks in one place"
            yield f"networks[{place}].name", problem
        names.add(each.name)
        for network in each.networks():
            if owners.setdefault(network, each.name) != each.name:
                problem = f"{network} is of {owners[network]!r} already: a network has one name"
                yield f"networks[{place}].cidrs", problem
    if len(named) > MAX_NAMES:
        yield "networks", f"{len(named)} names, more than {MAX_NAMES}"
    elif (size := network_names(named).size) > MAX_SQL:
        problem = f"{len(owners)} take {size} bytes of each statement, more than {MAX_SQL}"
        yield "networks", f"{problem}: join neighbours, leave out what lies within the same name's"
