import numpy as np

from flowvis.policies.model import Ports
from flowvis.policies.ports import PortClasses


def classes(table: PortClasses, *services: tuple[int, int]) -> list[int]:
    protocols, ports = zip(*services, strict=True)
    found = table.find(np.array(protocols, np.uint8), np.array(ports, np.uint16))
    return [int(number) for number in found]


def test_ports_that_no_rule_tells_apart_are_one_class() -> None:
    table = PortClasses([Ports(6, 80, 90), Ports(6, 85, 65535), Ports(17), Ports(None, name="web")])
    found = classes(table, *((6, port) for port in (0, 79, 80, 84, 85, 90, 91, 65535)))
    assert [found.index(one) for one in found] == [0, 0, 2, 2, 4, 4, 6, 6]


def test_protocols_are_always_apart() -> None:
    table = PortClasses([])
    found = classes(table, (6, 80), (17, 80), (132, 80), (1, 80), (58, 80), (0, 80), (255, 80))
    assert len(set(found)) == 7
    assert classes(table, (1, 0), (1, 9)) == classes(table, (1, 5), (1, 5))


def test_a_port_set_apart() -> None:
    table = PortClasses([])
    before = classes(table, (6, 80), (6, 81), (17, 80))
    for _ in range(2):
        table.set_apart(6, 80)
        table.set_apart(1, 80)
    after = classes(table, (6, 80), (6, 81), (17, 80))
    assert after[0] not in before
    assert after[1:] == before[1:]
