"""All harnesses, by name."""

from fuzz import acknowledgements, files, netlink, sessions, texts
from fuzz.harness import Harness

HARNESSES = {
    harness.name: harness
    for harness in (
        Harness("acknowledgements", acknowledgements.one),
        Harness("audit", texts.audit_one),
        Harness("configuration", texts.configuration_one),
        Harness("conntrack", netlink.conntrack_one),
        Harness("datagrams", sessions.datagrams_one),
        Harness("ipfix", sessions.one),
        Harness("kept", files.kept_one),
        Harness("nflog", netlink.nflog_one),
        Harness("spool", files.spool_one),
    )
}
