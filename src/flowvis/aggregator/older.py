"""flow-aggregator.conf, of all of Antrea's releases, as a document of ours.

Until 1.6 the external collector's options were at the outermost level, where an address switched it
on; until 1.2 there was one interval in place of the active and inactive timeouts.
"""

from flowvis.runtime.older import Older, is_blank, named


def from_antrea(older: Older) -> None:
    """Make an older flow-aggregator.conf today's; today's stays as it is."""
    older.move("externalFlowCollectorAddr", "flowCollector.address")
    if "flowCollector.address" in older.origins and is_blank(older.value("flowCollector.enable")):
        older.put("flowCollector.enable", True, "externalFlowCollectorAddr")
        older.warnings[-1] += ", with flowCollector.enable: true"
    older.move("observationDomainID", "flowCollector.observationDomainID")
    older.move("recordFormat", "flowCollector.recordFormat")
    older.move("flowExportInterval", "activeFlowRecordTimeout")
    _without_effect(older)


def _without_effect(older: Older) -> None:
    """Name what is taken but changes nothing."""
    section = older.document.get("apiServer")
    given = (
        [key for key, value in section.items() if not is_blank(value)]
        if isinstance(section, dict)
        else []
    )
    if given:
        keys = named(f"apiServer.{key}" for key in given)
        older.warnings.append(f"{keys}: no effect yet; flowctl uses controlSocket")
