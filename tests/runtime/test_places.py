import random
from collections import Counter

import pytest

from flowvis.runtime.places import Places


def filled(capacity: int, *addresses: str) -> Places[int]:
    """Guests 0, 1, ... of these addresses."""
    places: Places[int] = Places(capacity)
    for number, address in enumerate(addresses):
        places.add(address, number)
    return places


def test_the_oldest_of_the_address_with_most_gives_way() -> None:
    places = filled(4, "a", "b", "b", "a", "a")
    assert places.full
    assert places.to_give_way("c") == 0
    places.discard(0)
    places.discard(3)
    assert places.to_give_way("c") == 1
    assert not places.full


@pytest.mark.parametrize(("address", "guest"), [("a", 0), ("b", 1), ("c", 1)])
def test_among_addresses_with_as_many_it_is_the_newcomers_own(address: str, guest: int) -> None:
    assert filled(4, "a", "b", "b", "a").to_give_way(address) == guest


def test_many_addresses_share_as_one_would() -> None:
    places = filled(3, "a", "b", "c")
    assert places.to_give_way("d") == 0
    places.discard(0)
    places.add("d", 3)
    assert places.to_give_way("e") == 1


def test_it_agrees_with_plain_counting() -> None:
    chance = random.Random(8)
    places: Places[int] = Places(20)
    inside: list[tuple[str, int]] = []
    for number in range(5000):
        address = f"10.0.0.{int(chance.expovariate(0.5))}"
        if len(inside) == 20:
            victim = places.to_give_way(address)
            most = Counter(who for who, _ in inside)
            of = next(who for who, guest in inside if guest == victim)
            assert most[of] == max(most.values())
            assert of == address or most[address] < most[of]
            assert victim == next(guest for who, guest in inside if who == of)
            leaving = {victim, chance.choice(inside)[1]}
            for guest in leaving:
                places.discard(guest)
            inside = [each for each in inside if each[1] not in leaving]
        places.add(address, number)
        inside.append((address, number))
        assert list(places) == [guest for _, guest in inside]
        assert places.of(address) == sum(who == address for who, _ in inside)
