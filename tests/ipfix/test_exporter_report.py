"""What exporters of ours say of themselves, and what anybody may send in its place."""

from dataclasses import astuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowvis.errors import MalformedSet
from flowvis.fields import EXPORTED
from flowvis.ipfix.exporter import ExporterSession
from flowvis.ipfix.exporter_report import TEMPLATE, ExporterReport, read_report, report_message
from flowvis.ipfix.template import FieldSpecifier, Template, write_set, write_template
from flowvis.native.contract.ipfix import HEADER

from .conftest import Leaf
from .feeding import Fed
from .records import batch_of

DOMAIN = 7
REPORT = ExporterReport(1200, 262_144, 3, 4, 5)


def test_the_last_report_counts(leaf: Leaf) -> None:
    """And costs no record, nor a gap."""
    session = ExporterSession(DOMAIN, EXPORTED)
    batch = batch_of(
        [{"packetTotalCount": n, "sourceIP": "10.0.0.1"} for n in (1, 2)], leaf.table()
    )
    fed = Fed(leaf).feed(session.templates(1))
    fed.feed(session.report(ExporterReport(1, 2, 0, 0, 0), 1) + session.sent_again(1, 1))
    fed.feed(session.encode(batch, 1) + session.report(REPORT, 1) + session.encode(batch, 1))
    assert fed.session.report == REPORT
    stats = fed.session.stats
    assert (stats.records, stats.gaps, stats.lost_records, stats.malformed) == (4, 0, 0, {})
    assert (stats.sent_again, stats.templates) == (1, 4)


def test_a_report_of_another_domain_or_cut_short(leaf: Leaf) -> None:
    message = report_message(DOMAIN, REPORT, export_time=1, sequence=0)
    other = HEADER.pack(10, len(message), 1, 0, DOMAIN + 1) + message[HEADER.size :]
    fed = Fed(leaf).feed([other])
    assert fed.session.report is None
    assert fed.session.stats.malformed == {"options-scope": 1}
    with pytest.raises(MalformedSet, match="20 bytes"):
        read_report(bytes(20), DOMAIN)
    too_many = report_message(
        DOMAIN, ExporterReport(0, 0, 1 << 60, 0, 0), export_time=1, sequence=0
    )
    fed = Fed(leaf).feed([too_many, message])
    assert fed.session.stats.malformed == {"exporter-report": 1}
    assert fed.session.report == REPORT


def test_a_template_of_data_may_take_its_place(leaf: Leaf) -> None:
    """And the other way round: what is known of an id is what was said last."""
    session = ExporterSession(DOMAIN, EXPORTED)
    fed = Fed(leaf).feed(session.report(REPORT, 1))
    flows = Template(TEMPLATE.id, (FieldSpecifier(0, 8, 4), FieldSpecifier(0, 86, 8)))
    body = write_set(2, write_template(flows)) + write_set(TEMPLATE.id, bytes(12))
    fed.feed([HEADER.pack(10, HEADER.size + len(body), 1, 1, DOMAIN) + body])
    assert fed.session.stats.records == 1
    later = ExporterReport(9, 9, 9, 9, 9)
    fed.feed([report_message(DOMAIN, later, export_time=1, sequence=2)])
    assert fed.session.report == later
    assert fed.session.stats.records == 1


@given(st.binary(max_size=80))
def test_whatever_comes_is_a_report_or_a_fault(body: bytes) -> None:
    try:
        report = read_report(body, int.from_bytes(body[:4]))
    except MalformedSet:
        return
    assert all(0 <= number <= 1 << 53 for number in astuple(report))
