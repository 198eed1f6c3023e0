from flowvis.aggregator.payers import Payers
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
