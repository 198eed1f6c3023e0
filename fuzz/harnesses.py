"""All harnesses, by name."""

from fuzz import files, netlink, sessions, texts
from fuzz.harness import Harness

HARNESSES = {
    harness.name: harness
    for harness in (
        Harness("audit", texts.audit_one),
        Harness("configuration", texts.configuration_one),
        Harness("conntrack", netlink.conntrack_one),
        Harness("ipfix", sessions.one),
        Harness("ipfix-file", files.one),
        Harness("nflog", netlink.nflog_one),
    )
}
