"""flow-aggregator.conf, of all of Antrea's releases, as a document of ours.

Until 1.6 the external collector's options were at the outermost level, where an address switched it
on; until 1.2 there was one interval in place of the active and inactive timeouts.
"""

from flowvis.runtime.older import Older, is_blank


def from_antrea(older: Older) -> None:
    """Make an older flow-aggregator.conf today's; today's stays as it is."""
    older.move("externalFlowCollectorAddr", "flowCollector.address")
    if "flowCollector.address" in older.origins and is_blank(older.value("flowCollector.enable")):
        older.put("flowCollector.enable", True, "externalFlowCollectorAddr")
        older.warnings[-1] += ", with flowCollector.enable: true"
    older.move("observationDomainID", "flowCollector.observationDomainID")
    older.move("recordFormat", "flowCollector.recordFormat")
    older.move("flowExportInterval", "activeFlowRecordTimeout")
