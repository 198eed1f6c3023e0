"""Conditions of the time before the filter language: each is the same as a comparison in it."""

CONDITIONS = {
    "pod": "a Pod's name, on either side",
    "namespace": "a namespace, on either side",
    "node": "a node, on either side",
    "service": "the Service that was called: namespace/name:port, namespace/name or name",
    "ip": "an address, on either side or the Service's",
    "port": "a port, on either side or the Service's",
    "protocol": "tcp, udp, sctp, icmp, icmpv6 or a number",
    "type": "intra-node, inter-node, to-external, from-external or a number",
    "verdict": "what policies decided: allowed, denied, dropped, rejected, unenforced",
    "policy": "the policy that decided, in either direction: namespace/name or name",
}
"""Comparisons by name, all of which must hold."""
