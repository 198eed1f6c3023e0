import tracemalloc

from flowvis.aggregator.payers import LOOKS, Payers
from flowvis.native import StringTable


def test_an_address_has_one_number_over_all_of_its_sessions() -> None:
    payers, strings = Payers(), StringTable()
    assert [payers.open(address, strings) for address in ("a", "b", "a")] == [1, 2, 1]
    for address in ("a", "a", "b"):
        payers.close(address)
    assert [payers.open(address, strings) for address in ("b", "a", "c")] == [2, 1, 3]


def test_a_number_is_given_again_when_nothing_is_left_of_its_address() -> None:
    payers, strings = Payers(3), StringTable()
    for address in ("a", "b", "c"):
        strings.payer = payers.open(address, strings)
        strings.intern(address.encode())
    payers.close("b")
    shared = payers.open("d", strings)  # no other is free: b's text is still there
    assert 1 <= shared <= 3
    fresh = StringTable()
    assert payers.open("e", fresh) == 2
    payers.close("a")
    assert payers.open("f", fresh) == 1


def test_addresses_beyond_all_numbers_are_not_remembered() -> None:
    payers, strings = Payers(3), StringTable()
    for address in ("a", "b", "c"):
        strings.payer = payers.open(address, strings)
        strings.intern(address.encode())
        payers.close(address)
    tracemalloc.start()
    try:
        for number in range(20_000):
            assert 1 <= payers.open(f"other {number}", strings) <= 3
            payers.close(f"other {number}")
        assert tracemalloc.get_traced_memory()[0] < 100_000
    finally:
        tracemalloc.stop()
    fresh = StringTable()
    assert sorted(payers.open(address, fresh) for address in ("d", "e", "f")) == [1, 2, 3]


def test_few_numbers_are_looked_at_for_one_more_address() -> None:
    looked = []

    class Charged(StringTable):
        def charged(self, payer: int) -> int:
            looked.append(payer)
            return 1 if payer < 1000 else 0

    payers, strings = Payers(1000), Charged()
    for number in range(1000):
        payers.open(str(number), strings)
        payers.close(str(number))
    found = {payers.open(f"other {number}", strings) for number in range(16)}
    assert len(looked) <= 16 * LOOKS
    assert 1000 in found, "all are looked at in turn"
