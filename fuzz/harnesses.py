"""All harnesses, by name."""

from fuzz import acknowledgements, files, kernels, sessions, texts
from fuzz.harness import Harness

HARNESSES = {
    harness.name: harness
    for harness in (
        Harness("acknowledgements", acknowledgements.one),
        Harness("audit", texts.audit_one),
        Harness("configuration", texts.configuration_one),
        Harness("conntrack", kernels.conntrack_one),
        Harness("datagrams", sessions.datagrams_one),
        Harness("dpctl", kernels.dpctl_one),
        Harness("ipfix", sessions.one),
        Harness("kept", files.kept_one),
        Harness("nflog", kernels.nflog_one),
        Harness("spool", files.spool_one),
    )
}
