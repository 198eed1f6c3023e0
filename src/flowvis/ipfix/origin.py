"""Where a record that another collector passes on was made, and which way the flow went there.

Antrea's aggregator in Proxy mode sends each node's half of a connection with both Pods filled in;
what says which half it is are IANA elements 61, 403, 404 and 405 (RFC 7015 section 6.2, RFC 5102).
"""

from flowvis.fields import FIELDS, Field, Kind, Merge, Side, Source

DIRECTION = "flowDirection"
ORIGINAL_DOMAIN = "originalObservationDomainId"
ORIGINAL_EXPORTER = "originalExporterIP"

ORIGIN: tuple[Field, ...] = (
    Field(
        DIRECTION,
        Kind.U8,
        Merge.ADDED,
        Source.RELAY,
        "0 ingress, 1 egress; of relayed records",
        (DIRECTION,),
    ),
    Field(
        ORIGINAL_DOMAIN,
        Kind.U32,
        Merge.ADDED,
        Source.RELAY,
        "Observation domain of the exporter that made a relayed record; 0: it is not relayed",
        (ORIGINAL_DOMAIN,),
    ),
    Field(
        ORIGINAL_EXPORTER,
        Kind.ADDRESS,
        Merge.ADDED,
        Source.RELAY,
        "Address of that exporter",
        ("originalExporterIPv4Address", "originalExporterIPv6Address"),
    ),
    Field("bothNodesCounted", Kind.U8, Merge.ADDED, Source.RELAY, "1: `NODE_COUNTERS` have values"),
)
"""Columns of decoded batches beside the exporter's fields; they are neither merged nor stored."""

AGGREGATED = "bothNodesCounted"
"""The column, 1 in records of templates with counters of both nodes (an aggregator's); only there
those of `NODE_COUNTERS` have values."""

NODE_COUNTERS: tuple[Field, ...] = tuple(
    field
    for field in FIELDS
    if field.merge in {Merge.TOTAL, Merge.DELTA} and field.side is not Side.COMMON
)
