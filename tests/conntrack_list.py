"""What conntrack-tools print of a node's table."""

import re
import subprocess
from collections import defaultdict

from flowvis.lab.namespaces import inside

PAIR = re.compile(r"(\w+)=(\S+)")


def conntrack(node: str) -> dict[tuple[str, ...], list[int]]:
    """Return counters by original 5-tuple: packets and octets, both ways."""
    entries = {}
    for family in ("ipv4", "ipv6"):
        with inside(node):
            command = ["conntrack", "-L", "-f", family]
            listing = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        for line in listing.splitlines():
            values = defaultdict(list)
            for name, value in PAIR.findall(line):
                values[name].append(value)
            key = (line.split()[0], *(values[name][0] for name in ("src", "sport", "dst", "dport")))
            pairs = zip(values["packets"], values["bytes"], strict=True)
            entries[key] = [int(count) for pair in pairs for count in pair]
    return entries
