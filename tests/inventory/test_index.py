import tracemalloc
from datetime import UTC, datetime
from ipaddress import ip_network
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from calls import calls_of
from flowvis.inventory import index, pods
from flowvis.inventory.index import NONE, Inventory, text_codes
from flowvis.inventory.objects import parse_pod
from flowvis.inventory.pods import KEPT_MS, OLDER_MS, SKEW_MS, PodIndex
from flowvis.native import StringTable
from inventory import kubernetes_objects
from inventory.kubernetes_objects import addresses, node, service

DAY = 86_400_000
NEW_YEAR = 1_767_225_600_000  # 2026-01-01T00:00:00Z


def pod(name: str, *ips: str, **more: Any) -> dict[str, Any]:
    return kubernetes_objects.pod(
        name, *ips, **{"creationTimestamp": "2026-01-01T00:00:00Z", **more}
    )


def names(
    inventory: Inventory, ips: list[str], at: int = NEW_YEAR + DAY, *, then: bool = False
) -> list[str]:
    times = np.full(len(ips), at, dtype=np.uint64)
    handles = inventory.pods.find(addresses(ips), times)
    if then:
        handles = inventory.pods.of_then(handles, times)
    return ["" if h == NONE else inventory.pods.objects[h].name for h in handles.tolist()]


def test_pods_by_every_address() -> None:
    inventory = Inventory()
    inventory.upsert(pod("a", "10.0.0.1", "fd00::1"), NEW_YEAR)
    inventory.upsert(pod("b", "10.0.0.2"), NEW_YEAR)
    ips = ["fd00::1", "10.0.0.2", "10.0.0.3", "10.0.0.1"]
    assert names(inventory, ips) == ["a", "b", "", "a"]


def served(inventory: Inventory, at: int, *ports: int, on: str = "node-1") -> list[str]:
    """The Pods that serve TCP ports of a node's own addresses."""
    names, count = ["node-0", on], len(ports)
    handles = inventory.pods.find_on_nodes(
        names,
        np.ones(count, dtype=np.int64),
        u8([6] * count),
        u16([*ports]),
        np.full(count, at, dtype=np.uint64),
    )
    return ["" if h == NONE else inventory.pods.objects[h].name for h in handles.tolist()]


def on_node(name: str, *ports: int, **more: Any) -> dict[str, Any]:
    containers = [{"ports": [{"containerPort": port} for port in ports]}]
    spec = {"hostNetwork": True, "containers": containers}
    return pod(name, "192.0.2.1", spec=spec, **more)


def test_ports_of_a_nodes_own_addresses() -> None:
    inventory, day = Inventory(), NEW_YEAR + DAY
    inventory.upsert(on_node("old", 9100, 53), NEW_YEAR)
    inventory.upsert(pod("own", "10.0.0.1", spec=on_node("", 22)["spec"] | {"hostNetwork": 0}), day)
    assert served(inventory, day, 9100, 53, 22, 80, 9100) == ["old", "old", "", "", "old"]
    assert served(inventory, day, 9100, on="node-2") == [""]
    inventory.upsert(on_node("new", 9100, creationTimestamp="2026-01-02T00:00:00Z"), day)
    assert served(inventory, day + 1, 9100, 53) == ["", "old"], "both: it is not certain"
    inventory.delete(on_node("old"), day + 60_000)
    assert served(inventory, day + 50_000, 9100) == [""]
    assert served(inventory, day + 70_000, 9100, 53) == ["new", "old"]
    assert served(inventory, NEW_YEAR + 1, 9100) == ["old"]
    inventory.expire(day + 60_000 + KEPT_MS)
    assert served(inventory, NEW_YEAR + 1, 9100, 53) == ["", ""], "long before it was made"
    assert served(inventory, day + 1, 9100, 53) == ["new", ""]
    inventory.upsert(on_node("new", 9101, creationTimestamp="2026-01-02T00:00:00Z"), day)
    assert served(inventory, day, 9100, 9101) == ["", "new"]


def test_a_pod_of_its_nodes_network_that_ran_to_its_end_is_one_however_often_it_comes() -> None:
    inventory, done = Inventory(), NEW_YEAR + 10_000
    inventory.upsert(on_node("job", 9100), NEW_YEAR)
    end = ended("job", "", "2026-01-01T00:00:10Z")["status"]
    for _ in range(3):
        inventory.upsert(on_node("job", 9100, status=end), done + 1000)
    assert served(inventory, NEW_YEAR + 5000, 9100) == ["job"]
    inventory.upsert(on_node("elsewhere", status=end), done)
    assert len(inventory.pods.objects) == 1


def test_a_pod_of_its_nodes_network_that_waited_for_another_one_to_go() -> None:
    inventory = Inventory()
    inventory.upsert(on_node("old", 9100), NEW_YEAR)
    inventory.upsert(on_node("new", 9100, status={"phase": "Pending"}), NEW_YEAR + 1000)
    inventory.delete(on_node("old"), NEW_YEAR + 60_000)
    inventory.upsert(on_node("new", 9100, status={"phase": "Pending"}), NEW_YEAR + 61_000)
    inventory.upsert(on_node("new", 9100), NEW_YEAR + 62_000)
    found = [served(inventory, NEW_YEAR + at, 9100)[0] for at in (30_000, 60_500, 62_000)]
    assert found == ["old", "", "new"]


def test_workloads_are_numbered_anew_when_most_are_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pods, "SPARE", 4)
    inventory, strings = Inventory(), StringTable()
    inventory.upsert(pod("bare", "10.0.0.1"), NEW_YEAR)
    for number in range(50):
        owner = {"kind": "Job", "name": f"job-{number}", "controller": True}
        job = pod("runs", "10.0.0.2", uid=str(number), ownerReferences=[owner])
        inventory.upsert(job, NEW_YEAR + number * KEPT_MS)
        inventory.expire(NEW_YEAR + number * KEPT_MS)
        found = inventory.pods.find(
            addresses(["10.0.0.2", "10.0.0.1", "10.0.0.9"]),
            np.full(3, NEW_YEAR + number * KEPT_MS + 1, dtype=np.uint64),
        )
        kinds, names = inventory.pods.workloads(found, strings)
        assert strings.texts(kinds) == ["Job", "", ""]
        assert strings.texts(names) == [f"job-{number}", "", ""]
    assert len(inventory.pods._workloads) < 20
    kinds, names = inventory.pods.workloads(found, StringTable())
    assert (kinds.tolist()[1:], names.tolist()[1:]) == ([0, 0], [0, 0])
    assert kinds[0] != names[0] != 0


def test_nothing_is_found_in_an_empty_inventory() -> None:
    inventory = Inventory()
    column = addresses(["10.0.0.1"])
    assert names(inventory, ["10.0.0.1"]) == [""]
    assert inventory.nodes.find(column).tolist() == [NONE]
    assert inventory.services.find(column, u16([80]), u8([6])).tolist() == [NONE]
    assert inventory.are_pods(column).tolist() == [False]
    assert len(inventory) == 0


def test_the_only_pod_of_an_address_is_found_at_any_time() -> None:
    inventory = Inventory()
    inventory.upsert(pod("a", "10.0.0.1"), NEW_YEAR)
    assert names(inventory, ["10.0.0.1"], NEW_YEAR - DAY) == ["a"]
    assert names(inventory, ["10.0.0.1"], NEW_YEAR - OLDER_MS, then=True) == ["a"]
    assert names(inventory, ["10.0.0.1"], 0, then=True) == ["a"], "of a time that is not known"
    inventory.delete(pod("a"), NEW_YEAR + 10)
    assert names(inventory, ["10.0.0.1"], NEW_YEAR + DAY, then=True) == ["a"]


def test_what_began_long_before_a_pod_was_made_began_without_it() -> None:
    """Its address was another Pod's, which is forgotten; conntrack may know the connection yet."""
    inventory = Inventory()
    inventory.upsert(pod("a", "10.0.0.1", creationTimestamp="2025-12-31T20:00:00Z"), NEW_YEAR)
    inventory.delete(pod("a"), NEW_YEAR + 1000)
    inventory.expire(NEW_YEAR + 1000 + KEPT_MS)
    began, both = NEW_YEAR - 3_600_000, ["10.0.0.1", "10.0.0.2"]
    assert names(inventory, both, began, then=True) == ["", ""]
    for later in (pod("b", "10.0.0.1"), pod("c", "10.0.0.1")):
        inventory.upsert(later, NEW_YEAR + 600_000)
        assert names(inventory, both, began, then=True) == ["", ""]
    inventory.upsert(pod("d", "10.0.0.2", creationTimestamp="2025-12-31T22:00:00Z"), NEW_YEAR)
    assert names(inventory, both, began, then=True) == ["", "d"]


@pytest.mark.parametrize("order", [("old", "new"), ("new", "old")])
def test_of_two_pods_that_are_seen_with_an_address_at_once_the_younger_one_has_it(
    order: tuple[str, str],
) -> None:
    """As at a start, while the object of a Pod whose node is gone stays."""
    made = {"old": "2026-01-01T00:00:00Z", "new": "2026-01-01T06:00:00Z"}
    inventory = Inventory()
    for name in order:
        inventory.upsert(pod(name, "10.0.0.1", creationTimestamp=made[name]), NEW_YEAR + DAY)
    hours = (1, 5, 7, 23, 25)
    found = [names(inventory, ["10.0.0.1"], NEW_YEAR + at * 3_600_000)[0] for at in hours]
    assert found == ["old", "old", "new", "new", "new"]


def test_of_several_pods_the_one_that_lived_at_the_time() -> None:
    inventory = Inventory()
    inventory.upsert(pod("a", "10.0.0.1"), NEW_YEAR)
    inventory.delete(pod("a"), NEW_YEAR + 1000)
    inventory.upsert(
        pod("b", "10.0.0.1", creationTimestamp="2026-01-01T00:00:02+00:00"), NEW_YEAR + 2500
    )
    found = [names(inventory, ["10.0.0.1"], NEW_YEAR + at)[0] for at in (500, 1500, 3000)]
    assert found == ["a", "", "b"]


def test_a_pending_pod_has_its_address_from_when_it_was_seen() -> None:
    inventory = Inventory()
    inventory.upsert(pod("a", "10.0.0.1"), NEW_YEAR)
    inventory.delete(pod("a"), NEW_YEAR + 5000)
    inventory.upsert(pod("b", "10.0.0.1", status={"phase": "Pending"}), NEW_YEAR + 6000)
    found = [names(inventory, ["10.0.0.1"], NEW_YEAR + at)[0] for at in (4000, 5500, 6500)]
    assert found == ["a", "", "b"]


def test_a_pod_that_waited_has_its_address_from_when_it_was_last_seen_without() -> None:
    """Where a cluster is full the next Pod waits until one has gone, and gets its address."""
    inventory = Inventory()
    inventory.upsert(pod("a", "10.0.0.1"), NEW_YEAR)
    inventory.upsert(pod("b", node="", status={"phase": "Pending"}), NEW_YEAR + 1000)
    inventory.delete(pod("a"), NEW_YEAR + 60_000)
    inventory.upsert(pod("b", status={"phase": "Pending"}), NEW_YEAR + 61_000)
    inventory.upsert(pod("b", status={"phase": "Pending"}), NEW_YEAR + 62_500)  # says nothing new
    inventory.upsert(pod("b", "10.0.0.1"), NEW_YEAR + 65_000)
    times = (500, 30_000, 61_250, 63_000, 70_000)
    found = [names(inventory, ["10.0.0.1"], NEW_YEAR + at)[0] for at in times]
    assert found == ["a", "a", "", "b", "b"]


def test_pods_that_exchange_their_addresses_as_their_node_begins_anew() -> None:
    inventory = Inventory()
    inventory.upsert(pod("a", "10.0.0.1", "fd00::1", labels={"v": "1"}), NEW_YEAR)
    inventory.upsert(pod("b", "10.0.0.2"), NEW_YEAR)
    inventory.upsert(pod("b"), NEW_YEAR + 60_000)
    inventory.upsert(pod("a", "10.0.0.2", "fd00::1", labels={"v": "2"}), NEW_YEAR + 61_000)
    inventory.upsert(pod("b", "10.0.0.1"), NEW_YEAR + 62_000)
    ips = ["10.0.0.1", "10.0.0.2", "fd00::1"]
    assert names(inventory, ips, NEW_YEAR + 30_000) == ["a", "b", "a"]
    assert names(inventory, ips, NEW_YEAR + 70_000) == ["b", "a", "a"]
    assert len(inventory.pods) == 2
    assert sorted(pod.name for pod in inventory.pods.living()) == ["a", "b"]
    living = inventory.pods.named("shop", "a")
    assert living is not None
    assert living.labels == '{"v":"2"}'
    inventory.expire(NEW_YEAR + 61_000 + KEPT_MS)
    assert names(inventory, ips, NEW_YEAR + 70_000) == ["b", "a", "a"]
    inventory.delete(pod("a"), NEW_YEAR + 80_000)
    inventory.delete(pod("b"), NEW_YEAR + 80_000)
    inventory.expire(NEW_YEAR + 80_000 + KEPT_MS)
    assert names(inventory, ips, NEW_YEAR + 70_000) == ["", "", ""]
    assert len(inventory.pods._slots) == 0


def test_what_policies_want_to_know_of_a_pod() -> None:
    inventory = Inventory()
    ports = [
        {"name": "http", "containerPort": 8080},
        {"containerPort": 9000},
        {"name": "sync", "containerPort": 7000, "protocol": "SCTP"},
    ]
    admin = {"name": "admin", "containerPort": 1500}
    inits = [{"ports": [admin | {"name": "setup"}]}, {"restartPolicy": "Always", "ports": [admin]}]
    spec = {"containers": [{"ports": ports}, {}], "initContainers": inits}
    inventory.upsert(pod("a", "10.0.0.1", spec={**spec, "serviceAccountName": "cart"}), NEW_YEAR)
    inventory.upsert(pod("b", "10.0.0.2", spec=spec), NEW_YEAR)
    a, b = inventory.pods.objects
    assert a.named_ports == (("http", 6, 8080), ("sync", 132, 7000), ("admin", 6, 1500))
    assert (a.service_account, b.service_account) == ("cart", "")
    assert a.named_ports is b.named_ports


def test_pods_of_thousands_of_ports_leave_nothing_behind() -> None:
    """Whoever may make a Pod can make one after the other, and each with other ports."""
    inventory, held = Inventory(), []
    tracemalloc.start()
    try:
        for number in range(20):
            ports = [{"name": f"p{number}-{n}", "containerPort": 1 + n} for n in range(1000)]
            vast = pod("vast", "10.0.0.1", uid=f"{number}", spec={"containers": [{"ports": ports}]})
            inventory.upsert(vast, NEW_YEAR + number * KEPT_MS)
            inventory.expire(NEW_YEAR + number * KEPT_MS)
            held.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert held[-1] < held[3] + 100_000


def test_another_uid_is_another_pod() -> None:
    inventory = Inventory()
    inventory.upsert(pod("web-0", "10.0.0.1", uid="1", labels={"v": "1"}), NEW_YEAR)
    later = pod("web-0", "10.0.0.1", uid="2", creationTimestamp="2026-01-01T00:01:00Z")
    inventory.upsert(later, NEW_YEAR + 60_000)
    column = addresses(["10.0.0.1"] * 2)
    times = np.array([NEW_YEAR + 1000, NEW_YEAR + 61_000], dtype=np.uint64)
    found = inventory.pods.find(column, times).tolist()
    assert [inventory.pods.objects[h].uid for h in found] == ["1", "2"]
    assert len(inventory.pods) == 1


def test_a_pod_that_gets_its_address_later_and_then_changes_it() -> None:
    inventory = Inventory()
    inventory.upsert(pod("a"), NEW_YEAR)
    inventory.upsert(pod("a", "10.0.0.1"), NEW_YEAR + 1)
    inventory.upsert(pod("a", "10.0.0.9"), NEW_YEAR + 2)
    assert names(inventory, ["10.0.0.1", "10.0.0.9"]) == ["a", "a"], "that was its address lately"
    inventory.expire(NEW_YEAR + 2 + KEPT_MS)
    assert names(inventory, ["10.0.0.1", "10.0.0.9"]) == ["", "a"]


def test_pods_without_addresses_of_their_own_are_not_found() -> None:
    inventory = Inventory()
    inventory.upsert(pod("host", "192.0.2.1", spec={"hostNetwork": True}), NEW_YEAR)
    inventory.upsert(pod("evicted", "10.0.0.2", status={"phase": "Failed"}), NEW_YEAR)
    assert names(inventory, ["192.0.2.1", "10.0.0.2"]) == ["", ""]
    assert [p.name for p in inventory.pods.objects if p.shares_node] == ["host"]


def ended(name: str, ip: str, at: str = "") -> dict[str, object]:
    container = {"state": {"terminated": {"finishedAt": at or None}}}
    return pod(name, ip, status={"phase": "Succeeded", "containerStatuses": [{}, container]})


def check_the_next_one(inventory: Inventory) -> None:
    """Have another Pod get the address of "job", which ended 10 s after NEW_YEAR."""
    inventory.upsert(
        pod("next", "10.0.0.1", creationTimestamp="2026-01-01T00:00:20Z"), NEW_YEAR + 21_000
    )
    found = [names(inventory, ["10.0.0.1"], NEW_YEAR + at)[0] for at in (9000, 15_000, 25_000)]
    assert found == ["job", "", "next"]
    inventory.expire(NEW_YEAR + 10_999 + KEPT_MS)
    assert names(inventory, ["10.0.0.1"], NEW_YEAR + 9000) == ["next"]


def test_a_completed_jobs_pod_had_its_address_until_it_ended() -> None:
    inventory = Inventory()
    inventory.upsert(pod("job", "10.0.0.1"), NEW_YEAR)
    inventory.upsert(ended("job", "10.0.0.1", "2026-01-01T00:00:10Z"), NEW_YEAR + 12_000)
    inventory.upsert(ended("job", "10.0.0.1", "2026-01-01T00:00:10Z"), NEW_YEAR + 13_000)
    assert len(inventory) == 0
    assert names(inventory, ["10.0.0.1"]) == ["job"]
    check_the_next_one(inventory)


def test_a_pod_that_ended_before_we_came_is_known_as_long_as_a_deleted_one() -> None:
    inventory = Inventory()
    for _ in range(2):
        inventory.upsert(ended("job", "10.0.0.1", "2026-01-01T00:00:10Z"), NEW_YEAR + 12_000)
    inventory.upsert(ended("old", "10.0.0.2", "2025-12-31T00:00:00Z"), NEW_YEAR + 12_000)
    assert names(inventory, ["10.0.0.1", "10.0.0.2"]) == ["job", ""]
    inventory.expire(NEW_YEAR + 10_999 + KEPT_MS)
    assert names(inventory, ["10.0.0.1"]) == [""]


def test_a_pod_that_ran_for_a_moment_has_the_address_that_comes_with_its_end() -> None:
    inventory = Inventory()
    inventory.upsert(pod("job", "", status={"phase": "Pending"}), NEW_YEAR)
    inventory.upsert(ended("job", "10.0.0.1", "2026-01-01T00:00:10Z"), NEW_YEAR + 12_000)
    assert names(inventory, ["10.0.0.1"], NEW_YEAR + 9000) == ["job"]
    check_the_next_one(inventory)


def test_a_pod_whose_end_tells_no_address_had_the_one_that_it_had() -> None:
    inventory = Inventory()
    inventory.upsert(pod("job", "10.0.0.1"), NEW_YEAR)
    inventory.upsert(ended("job", "", "2026-01-01T00:00:10Z"), NEW_YEAR + 12_000)
    assert names(inventory, ["10.0.0.1"], NEW_YEAR + 9000) == ["job"]


def test_a_sidecar_has_the_address_until_it_ends_after_all_others() -> None:
    inventory = Inventory()
    inventory.upsert(pod("job", "10.0.0.1"), NEW_YEAR)
    over = ended("job", "10.0.0.1", "2026-01-01T00:00:10Z")
    sidecar = {"state": {"terminated": {"finishedAt": "2026-01-01T00:00:30Z"}}}
    over["status"] |= {"initContainerStatuses": [sidecar]}  # type: ignore[operator]
    inventory.upsert(over, NEW_YEAR + 31_000)
    inventory.upsert(
        pod("next", "10.0.0.1", creationTimestamp="2026-01-01T00:00:40Z"), NEW_YEAR + 41_000
    )
    found = [names(inventory, ["10.0.0.1"], NEW_YEAR + at)[0] for at in (25_000, 35_000, 45_000)]
    assert found == ["job", "", "next"]


def waiting(name: str) -> dict[str, object]:
    return pod(name, status={"phase": "Pending"})


def test_an_address_is_the_former_pods_to_its_end_though_the_next_one_waits_already() -> None:
    inventory = Inventory()
    inventory.upsert(waiting("a"), NEW_YEAR)
    inventory.upsert(pod("a", "10.0.0.1"), NEW_YEAR + 2_000)
    inventory.upsert(waiting("b"), NEW_YEAR + 5_000)
    inventory.delete(pod("a", "10.0.0.1"), NEW_YEAR + 20_000)
    inventory.upsert(pod("b", "10.0.0.1"), NEW_YEAR + 23_000)
    found = [names(inventory, ["10.0.0.1"], NEW_YEAR + at)[0] for at in (1000, 15_000, 21_000)]
    assert found == ["a", "a", "b"]


def test_a_pod_whose_object_stays_has_lost_its_address_to_who_is_seen_with_it() -> None:
    inventory = Inventory()
    inventory.upsert(pod("a", "10.0.0.1"), NEW_YEAR)
    inventory.upsert(waiting("b"), NEW_YEAR + 5_000)
    inventory.upsert(pod("b", "10.0.0.1"), NEW_YEAR + 7_000)
    inventory.upsert(waiting("c"), NEW_YEAR + 10_000)
    inventory.upsert(ended("c", "10.0.0.1", "2026-01-01T00:00:14Z"), NEW_YEAR + 15_000)
    inventory.delete(pod("a", "10.0.0.1"), NEW_YEAR + 60_000)
    times = (4_000, 8_000, 12_000, 30_000)
    found = [names(inventory, ["10.0.0.1"], NEW_YEAR + at)[0] for at in times]
    assert found == ["a", "b", "c", "b"]


def test_a_pod_ran_to_the_end_of_the_second_that_its_end_is_told_by() -> None:
    inventory = Inventory()
    inventory.upsert(waiting("next"), NEW_YEAR)
    inventory.upsert(pod("job", "10.0.0.1"), NEW_YEAR + 9_000)
    inventory.upsert(ended("job", "10.0.0.1", "2026-01-01T00:00:10Z"), NEW_YEAR + 12_000)
    inventory.upsert(pod("next", "10.0.0.1"), NEW_YEAR + 20_000)
    assert names(inventory, ["10.0.0.1"], NEW_YEAR + 10_900) == ["job"]


@given(
    st.lists(
        st.tuples(
            st.integers(0, 60_000), st.integers(1_000, 30_000), st.sampled_from(("ran", "left"))
        ),
        min_size=2,
        max_size=6,
    ),
    st.data(),
)
def test_whose_an_address_was_as_pods_followed_each_other(
    lives: list[tuple[int, int, str]], data: Any
) -> None:
    """Each waits from any time before it has the address on, some to their end: Jobs."""
    events, spans, free = [], [], 100_000
    for place, (waited, had, end) in enumerate(lives):
        name, began, over = f"p{place}", free, free + had
        events.append((began - waited, "upsert", waiting(name)))
        if end == "left" or data.draw(st.booleans()):
            events.append((began + had // 4, "upsert", pod(name, "10.0.0.1")))
        if end == "left":
            events.append((over, "delete", pod(name)))
        else:
            second = (NEW_YEAR + over) // 1000 * 1000
            at = datetime.fromtimestamp(second / 1000, UTC).isoformat()
            events.append((over + 500, "upsert", ended(name, "10.0.0.1", at)))
        spans.append((name, began + had // 2))
        free = over + data.draw(st.integers(2_000, 20_000))
    inventory = Inventory()
    for when, what, item in sorted(events, key=lambda event: event[0]):
        getattr(inventory, what)(item, NEW_YEAR + when)
    for name, middle in spans:
        assert names(inventory, ["10.0.0.1"], NEW_YEAR + middle) == [name]


TIMES = st.integers(NEW_YEAR, NEW_YEAR + 8_000)


@given(
    st.lists(st.tuples(TIMES, TIMES, TIMES | st.just(pods.FOREVER_MS)), min_size=2, max_size=6),
    st.lists(TIMES, min_size=1, max_size=6),
)
def test_of_several_the_one_that_the_rules_say(
    lives: list[tuple[int, int, int]], times: list[int]
) -> None:
    """Of each: from when on it may have its address, when it was seen with it, and its end."""
    found = PodIndex()
    for place, life in enumerate(lives):
        found._add(parse_pod(pod(f"p{place}", "10.0.0.1")), *life)
    column = addresses(["10.0.0.1"] * len(times))
    answers = found.find(column, np.array(times, dtype=np.uint64)).tolist()
    assert answers == [the_one_of(lives, time) for time in times]


def the_one_of(lives: list[tuple[int, int, int]], time: int) -> int:
    """Ask one after the other."""
    then = [
        (until, -since, -place)
        for place, (since, _, until) in enumerate(lives)
        if since < time < until
    ]
    holder = -min(then)[2] if then else NONE
    after = lives[holder][0] if then else 0
    seen_later = [
        (seen, since, place)
        for place, (since, seen, until) in enumerate(lives)
        if after < seen <= time < until
    ]
    if seen_later:
        return max(seen_later)[2]
    near = [
        place
        for place, (since, _, until) in enumerate(lives)
        if since - SKEW_MS <= time <= until + SKEW_MS
    ]
    return near[0] if holder == NONE and len(near) == 1 else holder


def test_thousands_of_addresses_that_several_pods_had_cost_no_python_each() -> None:
    """As while all Pods of a cluster are made anew, by a CNI that gives addresses again soon."""

    def calls(places: int) -> int:
        inventory = Inventory()
        ips = [f"10.0.{at >> 8}.{at & 255}" for at in range(places)]
        for name, since_ms in (("old", NEW_YEAR), ("new", NEW_YEAR + 1000)):
            for at, ip in enumerate(ips):
                inventory.upsert(pod(f"{name}-{at}", ip), since_ms)
        column, times = addresses(ips), np.full(places, NEW_YEAR + 2000, dtype=np.uint64)
        return calls_of(lambda: inventory.pods.find(column, times))

    assert calls(600) == calls(3)


def test_nodes_clocks_may_differ_by_a_second() -> None:
    inventory = Inventory()
    inventory.upsert(pod("a", "10.0.0.1"), NEW_YEAR)
    inventory.delete(pod("a"), NEW_YEAR + 10_000)
    later = pod("b", "10.0.0.1", creationTimestamp="2026-01-01T00:01:00Z")
    inventory.upsert(later, NEW_YEAR + 60_000)
    times = (-900, 10_900, 12_000, 58_000, 59_200)
    found = [names(inventory, ["10.0.0.1"], NEW_YEAR + at)[0] for at in times]
    assert found == ["a", "a", "", "", "b"]


def test_the_end_of_an_earlier_pod_of_the_name_changes_nothing() -> None:
    inventory = Inventory()
    inventory.upsert(pod("web-0", "10.0.0.1", uid="2"), NEW_YEAR)
    inventory.delete(pod("web-0", uid="1"), NEW_YEAR)
    assert len(inventory) == 1


def test_deleted_pods_are_kept_for_a_while() -> None:
    inventory = Inventory()
    inventory.upsert(pod("a", "10.0.0.1"), NEW_YEAR)
    inventory.delete(pod("a"), NEW_YEAR)
    inventory.expire(NEW_YEAR + KEPT_MS - 1)
    assert names(inventory, ["10.0.0.1"]) == ["a"]
    inventory.expire(NEW_YEAR + KEPT_MS)
    assert names(inventory, ["10.0.0.1"]) == [""]
    inventory.upsert(pod("b", "10.0.0.2"), NEW_YEAR)
    assert names(inventory, ["10.0.0.1", "10.0.0.2"]) == ["", "b"]
    assert len(inventory.pods.objects) == 1  # the place was used again


def test_a_pod_that_names_an_address_twice_has_it_once() -> None:
    inventory = Inventory()
    inventory.upsert(pod("a", "10.0.0.1", "::ffff:10.0.0.1"), NEW_YEAR)
    assert names(inventory, ["10.0.0.1"], at=NEW_YEAR - SKEW_MS - 1) == ["a"]
    inventory.upsert(pod("a", "10.0.0.1", "10.0.0.1", "fd00::1"), NEW_YEAR)
    assert names(inventory, ["10.0.0.1", "fd00::1"]) == ["a", "a"]
    inventory.delete(pod("a"), NEW_YEAR + DAY)
    inventory.expire(NEW_YEAR + DAY + KEPT_MS)
    assert names(inventory, ["10.0.0.1", "fd00::1"]) == ["", ""]


def test_more_addresses_than_allowed_are_counted() -> None:
    inventory = Inventory(max_addresses=1)
    inventory.upsert(pod("a", "10.0.0.1", "10.0.0.2"), NEW_YEAR)
    assert inventory.pods.refused == 1
    assert names(inventory, ["10.0.0.1", "10.0.0.2"]) == ["a", ""]
    inventory.delete(pod("a"), NEW_YEAR)
    inventory.expire(NEW_YEAR + KEPT_MS)
    assert names(inventory, ["10.0.0.1"]) == [""]


def test_many_pods() -> None:
    pods = PodIndex()
    inventory = Inventory()
    inventory.pods = pods
    ips = [f"10.{i >> 8 & 255}.{i & 255}.1" for i in range(2000)]
    for i, ip in enumerate(ips):
        inventory.upsert(pod(f"p{i}", ip), NEW_YEAR)
    assert names(inventory, ips[::-1]) == [f"p{i}" for i in reversed(range(2000))]


def u16(values: list[int]) -> NDArray[np.uint16]:
    return np.array(values, dtype=np.uint16)


def u8(values: list[int]) -> NDArray[np.uint8]:
    return np.array(values, dtype=np.uint8)


def services(inventory: Inventory, *calls: tuple[str, int, int]) -> list[str]:
    ips, ports, protocols = zip(*calls, strict=True)
    handles = inventory.services.find(
        addresses(ips), u16(list(ports)), u8(list(protocols))
    ).tolist()
    return ["" if h == NONE else inventory.services.objects[h].service for h in handles]


def test_services_by_all_their_addresses() -> None:
    inventory = Inventory()
    inventory.upsert(
        service(
            "web",
            ["10.96.0.1", "fd00:96::1"],
            {"name": "http", "port": 80},
            {"name": "dns", "port": 53, "protocol": "UDP"},
            externalIPs=["198.51.100.1"],
            balancer=["203.0.113.7"],
        ),
        NEW_YEAR,
    )
    assert services(
        inventory,
        ("10.96.0.1", 80, 6),
        ("fd00:96::1", 53, 17),
        ("198.51.100.1", 80, 6),
        ("203.0.113.7", 80, 6),
        ("10.96.0.1", 80, 17),
        ("10.96.0.1", 81, 6),
    ) == ["shop/web:http", "shop/web:dns", "shop/web:http", "shop/web:http", "", ""]
    inventory.delete(service("web", ["10.96.0.1"]), NEW_YEAR)
    assert services(inventory, ("10.96.0.1", 80, 6)) == [""]


def test_an_address_that_several_services_have() -> None:
    inventory, shared = Inventory(), ["198.51.100.1", "198.51.100.1"]
    for number, ports in enumerate(([80], [80, 443], [22, 443])):
        inventory.upsert(
            service(
                f"s{number}",
                [f"10.96.0.{number}"],
                *({"name": f"p{port}", "port": port} for port in ports),
                externalIPs=[*shared, f"198.51.100.{number + 2}"],
            ),
            NEW_YEAR,
        )
    calls = [("198.51.100.1", port, 6) for port in (22, 443, 80, 81)]
    calls += [("198.51.100.4", 443, 6), ("10.96.0.0", 443, 6), ("198.51.100.9", 80, 6)]
    found = ["s2:p22", "s1:p443", "s0:p80", "", "s2:p443", "", ""]
    assert services(inventory, *calls) == [each and f"shop/{each}" for each in found]


def test_a_service_of_thousands_of_addresses_and_ports_takes_little() -> None:
    """Whoever may make one Service could else take the memory of every node's exporter."""
    inventory, many = Inventory(), 1000
    ports = ({"name": f"p{number}", "port": 1 + number} for number in range(many))
    ips = [f"198.18.{number >> 8}.{number & 255}" for number in range(many)]
    inventory.upsert(service("vast", ["10.96.0.1"], *ports, externalIPs=ips), NEW_YEAR)
    assert len(inventory.nodes.objects) == 0
    tracemalloc.start()
    try:
        assert services(inventory, ("198.18.3.0", 1000, 6)) == ["shop/vast:p999"]
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 1000 * many


def test_a_port_without_a_name_and_a_headless_service() -> None:
    inventory = Inventory()
    inventory.upsert(service("plain", ["10.96.0.2"], {"port": 443, "protocol": "TCP"}), NEW_YEAR)
    inventory.upsert(service("headless", ["None"], {"port": 443}), NEW_YEAR)
    assert services(inventory, ("10.96.0.2", 443, 6)) == ["shop/plain"]
    assert len(inventory.services.objects) == 2


def test_a_node_port_at_every_node_and_nowhere_else() -> None:
    inventory = Inventory()
    inventory.upsert(node("node-1", "192.0.2.1", "10.0.1.0/24"), NEW_YEAR)
    inventory.upsert(node("node-2", "192.0.2.2", "10.0.2.0/24"), NEW_YEAR)
    inventory.upsert(
        service("web", ["10.96.0.1"], {"name": "http", "port": 80, "nodePort": 30080}), NEW_YEAR
    )
    calls = (("192.0.2.2", 30080, 6), ("192.0.2.2", 30080, 17), ("192.0.2.3", 30080, 6))
    assert services(inventory, *calls) == ["shop/web:http", "", ""]


def test_nodes_and_their_pod_networks() -> None:
    inventory = Inventory()
    inventory.upsert(node("node-1", "192.0.2.1", "10.0.1.0/24", "fd00:1::/64"), NEW_YEAR)
    inventory.upsert(node("node-2", "192.0.2.2", "10.0.2.0/25"), NEW_YEAR)
    ips = ["192.0.2.2", "10.0.1.1", "10.0.1.9", "fd00:1::1", "fd00:1::9", "10.0.2.200"]
    found = inventory.nodes.find(addresses(ips)).tolist()
    named = ["" if h == NONE else inventory.nodes.objects[h].name for h in found]
    assert named == ["node-2", "node-1", "", "node-1", "", ""]
    pods = [False, False, True, False, True, False]
    assert inventory.are_pods(addresses(ips)).tolist() == pods
    inventory.delete(node("node-1", ""), NEW_YEAR)
    assert not inventory.are_pods(addresses(ips)).any()


@pytest.mark.parametrize("order", [("old", "new"), ("new", "old")])
def test_an_address_that_two_nodes_have_is_the_younger_ones(order: tuple[str, str]) -> None:
    """The object of a node that is gone may stay when another one has its address already."""
    inventory = Inventory()
    created = {"old": "2025-01-01T00:00:00Z", "new": "2026-01-01T00:00:00Z"}
    for name in order:
        item = node(name, "192.0.2.1")
        item["metadata"]["creationTimestamp"] = created[name]
        inventory.upsert(item, NEW_YEAR)
    (found,) = inventory.nodes.find(addresses(["192.0.2.1"])).tolist()
    assert inventory.nodes.objects[found].name == "new"
    inventory.delete(node("new", ""), NEW_YEAR)
    (found,) = inventory.nodes.find(addresses(["192.0.2.1"])).tolist()
    assert inventory.nodes.objects[found].name == "old"


def test_a_known_pod_is_a_pod_outside_of_the_networks_too() -> None:
    inventory = Inventory()
    inventory.upsert(pod("a", "172.30.0.1"), NEW_YEAR)
    assert inventory.are_pods(addresses(["172.30.0.1", "172.30.0.2"])).tolist() == [True, False]


def test_a_nodes_state_costs_no_new_index() -> None:
    inventory = Inventory()
    inventory.upsert(node("node-1", "192.0.2.1"), NEW_YEAR)
    inventory.upsert(service("web", ["10.96.0.1"], {"port": 80}), NEW_YEAR)
    nodes, services = inventory.nodes, inventory.services
    beat = node("node-1", "192.0.2.1")
    beat["status"]["conditions"] = [{"type": "Ready", "lastHeartbeatTime": "now"}]
    inventory.upsert(beat, NEW_YEAR + 1)
    inventory.upsert(service("web", ["10.96.0.1"], {"port": 80}), NEW_YEAR + 1)
    inventory.retain("", "Node", {("", "node-1")}, NEW_YEAR + 1)
    assert inventory.nodes is nodes
    assert inventory.services is services


def test_namespaces_by_name() -> None:
    inventory = Inventory()
    metadata = {"name": "shop", "uid": "7", "labels": {"team": "a"}}
    inventory.upsert({"kind": "Namespace", "metadata": metadata}, NEW_YEAR)
    inventory.upsert({"kind": "Namespace", "metadata": {"name": "gone"}}, NEW_YEAR)
    inventory.delete({"kind": "Namespace", "metadata": {"name": "gone"}}, NEW_YEAR)
    assert inventory.namespaces["shop"].labels == {"team": "a"}
    assert len(inventory) == len(inventory.namespaces) == 1
    inventory.retain("", "Namespace", set(), NEW_YEAR)
    assert not inventory.namespaces


def test_retain_forgets_others_of_that_kind_only() -> None:
    inventory = Inventory()
    inventory.upsert(pod("a", "10.0.0.1"), NEW_YEAR)
    inventory.upsert(pod("b", "10.0.0.2"), NEW_YEAR)
    inventory.upsert(service("web", ["10.96.0.1"], {"port": 80}), NEW_YEAR)
    inventory.retain("", "Pod", {("shop", "b")}, NEW_YEAR + 1)
    inventory.retain("networking.k8s.io", "NetworkPolicy", set(), NEW_YEAR + 1)
    assert len(inventory) == 2
    assert inventory.pods.names() == [("shop", "b")]
    inventory.retain("", "Service", set(), NEW_YEAR + 1)
    assert services(inventory, ("10.96.0.1", 80, 6)) == [""]


def test_replace_deletes_what_is_not_there_any_more() -> None:
    inventory = Inventory()
    inventory.replace(
        [pod("a", "10.0.0.1"), pod("b", "10.0.0.2"), node("node-1", "192.0.2.1")], NEW_YEAR
    )
    inventory.replace([pod("b", "10.0.0.2")], NEW_YEAR + 1)
    assert len(inventory) == 1
    assert inventory.nodes.find(addresses(["192.0.2.1"])).tolist() == [NONE]
    inventory.expire(NEW_YEAR + 1 + KEPT_MS)
    assert names(inventory, ["10.0.0.1", "10.0.0.2"]) == ["", "b"]


def test_replace_with_a_bad_object_changes_nothing() -> None:
    inventory = Inventory()
    inventory.replace([pod("a", "10.0.0.1")], NEW_YEAR)
    with pytest.raises(ValueError, match=r"Pod shop/b: .*not-an-ip"):
        inventory.replace([pod("b", "not-an-ip")], NEW_YEAR)
    assert names(inventory, ["10.0.0.1"]) == ["a"]


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ({"kind": "Pod", "metadata": {"name": "x"}}, "Pod x: metadata.namespace is missing"),
        ({"kind": "Service"}, "Service without a name: metadata.name is missing"),
        ({"kind": "Node", "metadata": 7}, "Node: metadata is not a mapping"),
        (
            pod("x", "10.0.0.256", "fe80::g"),
            "Pod shop/x: status.podIPs: 'fe80::g' is no IP address",
        ),
        (service("w", ["10.96.0.1"], {"port": 65536}), "Service shop/w: port: 65536 is no port"),
        (service("w", ["10.96.0.1"], {"name": "http"}), "Service shop/w: 'port' is missing"),
        (pod("x", ownerReferences=[7]), "Pod shop/x: 'int' object has no attribute"),
        (pod("x", creationTimestamp="soon"), "Pod shop/x: creationTimestamp 'soon' is no time"),
        (pod("x", creationTimestamp="0001-01-01T00:00:00"), "'0001-01-01T00:00:00' is no time"),
        (pod("x", uid=["u"]), r"Pod shop/x: metadata.uid \['u'\] is not a text"),
        (pod(["x"]), r"Pod shop/\['x'\]: metadata.name \['x'\] is not a text"),  # type: ignore[arg-type]
        (pod("x", namespace={"a": 1}), "metadata.namespace {'a': 1} is not a text"),
    ],
)
def test_bad_objects_are_named(item: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Inventory().upsert(item, NEW_YEAR)


@pytest.mark.parametrize("metadata", [None, 7, {}, {"name": ["x"]}, {"name": 1.5}])
def test_what_has_no_name_cannot_be_gone(metadata: object) -> None:
    inventory = Inventory()
    inventory.upsert(pod("x", "10.0.0.1"), NEW_YEAR)
    with pytest.raises(ValueError, match=r"metadata\.name is missing"):
        inventory.delete({"kind": "Pod", "metadata": metadata}, NEW_YEAR)
    assert len(inventory) == 1


def test_what_is_odd_in_an_object_costs_nothing_else_of_it() -> None:
    reported: list[str] = []
    inventory = Inventory(report=reported.append)
    ports: list[Any] = [
        {"port": 80, "nodePort": 70000}, {"port": 0}, {"name": "no-number"}, 7, {"port": 53},
    ]  # fmt: skip
    odd: dict[str, Any] = {
        "externalIPs": ["198.051.100.007", "nowhere", None, 12],
        "balancer": ["203.0.113.010", "2001:0db8::00010", "::ffff:203.000.113.9"],
    }
    inventory.upsert(service("web", ["10.96.0.9", "10.096.0.08"], *ports, **odd), NEW_YEAR)
    for address in (
        *("10.96.0.9", "10.96.0.8", "198.51.100.7", "203.0.113.10", "2001:db8::10", "203.0.113.9"),
    ):
        for port in (80, 53):
            assert services(inventory, (address, port, 6)) == ["shop/web"]
    assert all(port.node_port == 0 for port in inventory.services.objects)
    odd_node = node("n1", "192.168.001.005", "10.244.1.9/24", "10.1.0.0/33", "fd00::0001:5/112")
    odd_node["status"]["addresses"] += [7, {"type": "InternalIP", "address": "x"}]
    inventory.upsert(odd_node, NEW_YEAR)
    inventory.upsert(service("s", ["10.96.0.5"], {"port": 80}, externalIPs=7), NEW_YEAR)
    assert services(inventory, ("10.96.0.5", 80, 6)) == ["shop/s"]
    assert list(map(str, inventory.nodes.objects[0].pod_networks)) == [
        "10.244.1.0/24",
        "fd00::1:0/112",
    ]
    assert inventory.nodes.find(addresses(["192.168.1.5", "10.244.1.1"])).tolist() == [0, 0]
    container = {
        "ports": [{"name": "a", "containerPort": "80"}, {"name": "b", "containerPort": 81}]
    }
    spec = {"containers": ["?", container, {"ports": {"name": "c"}}]}
    inventory.upsert(pod("p", "010.000.000.001", "10.0.0.300", spec=spec), NEW_YEAR)
    assert names(inventory, ["10.0.0.1"]) == ["p"]
    assert inventory.pods.objects[0].named_ports == (("b", 6, 81),)
    assert inventory.stats.odd_values == {"Service": 12, "Node": 6, "Pod": 5}
    for text in (
        "Service shop/web: spec.externalIPs: '198.051.100.007' is read as 198.51.100.7",
        "Service shop/web: spec.externalIPs: 'nowhere' is no IP address: it is left out",
        "Node n1: spec.podCIDRs: '10.244.1.9/24' is read as 10.244.1.0/24",
        "Pod shop/p: containerPort: '80' is no port from 1 to 65535: it is left out",
    ):
        assert reported.count(text) == 1


def test_an_odd_value_is_reported_once_and_there_is_an_end_to_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(index, "MAX_NOTES", 3)
    reported: list[str] = []
    inventory = Inventory(report=reported.append)
    for _ in range(3):
        inventory.upsert(node("n", "192.0.2.001"), NEW_YEAR)
    assert len(reported) == 1
    inventory.replace([node(f"n{i}", f"192.0.2.00{i}") for i in range(5)], NEW_YEAR)
    assert len(reported) == 3
    assert inventory.stats.odd_values == {"Node": 3}
    assert inventory.stats.odd_values_unnoted == 3
    assert len(inventory) == 5


def test_the_smallest_pod_networks() -> None:
    inventory = Inventory()
    inventory.upsert(node("n", "192.0.2.1", "255.255.255.255/32", "10.9.9.9/32"), NEW_YEAR)
    found = inventory.nodes.find(addresses(["255.255.255.255", "10.9.9.9", "10.9.9.10"]))
    assert found.tolist() == [0, 0, NONE]


def test_other_kinds_are_passed_over() -> None:
    inventory = Inventory()
    inventory.upsert({"kind": "ConfigMap", "metadata": {"name": "x"}}, NEW_YEAR)
    inventory.delete({"kind": "ConfigMap", "metadata": {"name": "x"}}, NEW_YEAR)
    assert len(inventory) == 0


def test_text_codes() -> None:
    inventory = Inventory()
    for name, ip in (("a", "10.0.0.1"), ("b", "10.0.0.2")):
        inventory.upsert(pod(name, ip, labels={"z": "1", "app": name}), NEW_YEAR)
    ips = ["10.0.0.2", "10.0.0.7", "10.0.0.1", "10.0.0.2"]
    handles = inventory.pods.find(addresses(ips), np.zeros(4, dtype=np.uint64))
    strings = StringTable()
    codes = text_codes(handles, inventory.pods.objects, lambda pod: pod.name, strings)
    assert strings.texts(codes) == ["b", "", "a", "b"]
    labels = text_codes(handles, inventory.pods.objects, lambda pod: pod.labels, strings)
    assert strings.texts(labels[:1]) == ['{"app":"b","z":"1"}']


def test_other_pod_networks() -> None:
    inventory = Inventory(pod_networks=[ip_network("10.1.0.0/16")])
    assert inventory.are_pods(addresses(["10.1.0.1", "10.2.0.1"])).tolist() == [True, False]
    inventory.set_pod_networks([ip_network("10.2.0.0/16")])
    assert inventory.are_pods(addresses(["10.1.0.1", "10.2.0.1"])).tolist() == [False, True]


def test_a_change_that_says_nothing_new_of_a_pod_leaves_its_object() -> None:
    # Policies look at a Pod again when another object stands in its place.
    inventory = Inventory()
    inventory.upsert(pod("a", "10.0.0.1", "fd00::1"), NEW_YEAR)
    (before,) = inventory.pods.objects
    inventory.upsert(pod("a", "10.0.0.1", "fd00::1", annotations={"seen": "twice"}), NEW_YEAR + 1)
    assert inventory.pods.objects[0] is before
    inventory.upsert(pod("a", "10.0.0.1", "fd00::1", labels={"now": "labelled"}), NEW_YEAR + 2)
    assert inventory.pods.objects[0].labels == '{"now":"labelled"}'
    assert names(inventory, ["10.0.0.1", "fd00::1"]) == ["a", "a"]
