from flowvis.aggregator.correlation.layout import COLUMNS, HELD, PROGRAM, ROW
from flowvis.fields import EXPORTED, FIELDS, Kind, Merge
from flowvis.native.contract.merge import Header, MergeOp


def offset(name: str) -> int:
    assert ROW.fields is not None
    return int(ROW.fields[name][1])


def test_the_row_holds_every_field_that_is_merged() -> None:
    assert list(HELD) == [field for field in FIELDS if field.merge is not Merge.ADDED]
    for field in HELD:
        assert ROW[field.name].base == field.kind.dtype
        assert ROW[field.name].shape == field.kind.shape


def test_the_header_is_where_the_leaf_expects_it() -> None:
    assert offset("sideStart") == Header.START
    assert offset("sideEnd") == Header.END
    assert offset("writtenAt") == Header.WRITTEN_AT
    assert offset("intervalStart") == Header.INTERVAL_START
    assert offset("exporters") == Header.EXPORTERS
    assert offset("written") == Header.WRITTEN
    assert min(offset(field.name) for field in HELD) >= Header.SIZE


def test_rows_are_whole_cache_lines_and_large_numbers_aligned() -> None:
    assert ROW.itemsize % 64 == 0
    for field in HELD:
        if field.kind is not Kind.ADDRESS:
            assert offset(field.name) % field.kind.dtype.itemsize == 0, field.name


def test_the_interval_is_the_deltas_and_rates_and_nothing_else() -> None:
    first, last = PROGRAM.interval
    for field in HELD:
        inside = first <= offset(field.name) < last
        assert inside == (field.merge in {Merge.DELTA, Merge.RATE}), field.name
    numbers = [field for field in HELD if field.merge in {Merge.DELTA, Merge.RATE}]
    assert last - first == 8 * len(numbers)


def test_the_end_is_that_of_the_flow_and_its_reason() -> None:
    assert PROGRAM.end == offset("flowEndMilliseconds")
    assert PROGRAM.reason == offset("flowEndReason")


def test_the_program_fills_every_field_once() -> None:
    filled = [step.offset for step in PROGRAM.steps]
    for counter in PROGRAM.counters:
        for tally in (counter.common, *counter.sides):
            filled += [place for place in (tally.total, tally.delta, tally.rate) if place >= 0]
    assert sorted(filled) == sorted(offset(field.name) for field in HELD)


def test_the_program_reads_every_exported_column() -> None:
    read = {step.column for step in PROGRAM.steps}
    for counter in PROGRAM.counters:
        read |= {counter.total, counter.delta}
    assert COLUMNS == EXPORTED
    assert read == set(range(len(EXPORTED)))


def test_ends_of_a_node_come_from_the_records_of_that_node() -> None:
    by_offset = {step.offset: step for step in PROGRAM.steps}
    for sides, name in (
        (1, "flowEndSecondsFromSourceNode"),
        (2, "flowEndSecondsFromDestinationNode"),
    ):
        step = by_offset[offset(name)]
        assert step.op is MergeOp.GREATEST
        assert step.sides == sides
        assert COLUMNS[step.column].name == "flowEndSeconds"


def test_counters_find_their_columns_by_name() -> None:
    for counter in PROGRAM.counters:
        total, delta = COLUMNS[counter.total].name, COLUMNS[counter.delta].name
        assert delta == total.replace("Total", "Delta")
        assert counter.common.total == offset(total)
        assert counter.common.delta == offset(delta)
        for tally, side in zip(counter.sides, ("Source", "Destination"), strict=True):
            assert tally.total == offset(f"{total}From{side}Node")
            assert tally.delta == offset(f"{delta}From{side}Node")
    rates = {
        COLUMNS[counter.total].name: [tally.rate for tally in (counter.common, *counter.sides)]
        for counter in PROGRAM.counters
    }
    for total, stem in (
        ("octetTotalCount", "throughput"),
        ("reverseOctetTotalCount", "reverseThroughput"),
    ):
        suffixes = ("", "FromSourceNode", "FromDestinationNode")
        assert rates[total] == [offset(stem + suffix) for suffix in suffixes]
    assert rates["packetTotalCount"] == rates["reversePacketTotalCount"] == [-1, -1, -1]
