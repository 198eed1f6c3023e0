"""What can go wrong in the middle of a run, on demand; nothing may be lost or wrong for it.

One module for each kind of thing that fails; the table below is all of them.
"""

from flowvis.lab.faults import (
    crowds,
    daemons,
    files,
    floods,
    kernel,
    kubernetes,
    links,
    resources,
    spools,
    stores,
)
from flowvis.lab.faults.fault import Fault

# A table reads best as one.
# fmt: off
FAULTS = {
    "restart-aggregator": Fault("ended by SIGTERM and started again", daemons.restart_aggregator,
                                splits=True),
    "restart-exporters": Fault("ended by SIGTERM and started again, on all nodes",
                               daemons.restart_exporters, deafens=True),
    "api-server": Fault("the API server is away for a sixth of the run",
                        kubernetes.stop_api_server, 0.05),
    "expired-watch": Fault("every watch ends and its version is forgotten",
                           kubernetes.expire_watches, 0.4),
    "secret": Fault("the Secret with the exporters' certificate is deleted",
                    kubernetes.delete_secret, 0.3),
    "ca": Fault("the CA and all that it signed are deleted", kubernetes.replace_ca, 0.3),
    "certificate-expired": Fault("the certificate of a node's exporter ends, and is replaced later",
                                 kubernetes.expire_certificate, 0.2, by_sums=True),
    "flood": Fault("10,000 packets a second that a policy denies"),
    **daemons.FAULTS,
    **links.FAULTS,
    **kernel.FAULTS,
    **floods.FAULTS,
    **stores.FAULTS,
    **resources.FAULTS,
    **files.FAULTS,
    **spools.FAULTS,
    **crowds.FAULTS,
}
# fmt: on
