"""What a page leads to is what it showed: filters that it makes choose the same records."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlparse

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from flowvis.fields import EndReason, FlowType, RuleAction

from . import read
from .opened import Console, Visit, console, log_in, new_context, now_s

PODS = {"shop/cart-0": "10.1.0.1", "shop/web-0": "10.1.0.2", "pay/db-0": "10.1.1.1"}
NODE = "node-0"


@dataclass(frozen=True)
class _Flow:
    """One connection of one record."""

    number: int
    source: str
    target: str
    """namespace/Pod, a node, or an address of neither."""
    type: int
    end_s: int
    policy: str = ""

    @property
    def octets(self) -> int:
        """Another power of two for each: no two sums of some are the same."""
        return 1000 << self.number

    def records(self) -> Iterator[dict[str, Any]]:
        """What an exporter sends of it."""
        record: dict[str, Any] = {
            "flowStartSeconds": self.end_s - 5,
            "flowStartMilliseconds": (self.end_s - 5) * 1000,
            "flowEndSeconds": self.end_s,
            "flowEndMilliseconds": self.end_s * 1000,
            "flowEndReason": EndReason.END,
            "sourceTransportPort": 40_000 + self.number,
            "destinationTransportPort": 80,
            "protocolIdentifier": 6,
            "flowType": self.type,
            "octetTotalCount": self.octets,
            "octetDeltaCount": self.octets,
            "packetTotalCount": 9,
            "packetDeltaCount": 9,
        }
        for end, name in (("source", self.source), ("destination", self.target)):
            record |= _named(end, name)
        if self.policy:
            namespace, _, name = self.policy.rpartition("/")
            record |= {
                "ingressNetworkPolicyNamespace": namespace,
                "ingressNetworkPolicyName": name,
                "ingressNetworkPolicyType": 1 if namespace else 3,
                "ingressNetworkPolicyRuleAction": RuleAction.ALLOW,
            }
        yield record


def _named(end: str, name: str) -> dict[str, Any]:
    if name == NODE:
        return {f"{end}IP": "10.9.0.1", f"{end}NodeName": NODE}
    if name in PODS:
        namespace, pod = name.split("/")
        return {
            f"{end}IP": PODS[name],
            f"{end}PodNamespace": namespace,
            f"{end}PodName": pod,
            f"{end}NodeName": NODE,
        }
    return {f"{end}IP": name}


INTRA, OUT, IN, NONE = (
    FlowType.INTRA_NODE, FlowType.TO_EXTERNAL, FlowType.FROM_EXTERNAL, 0,
)  # fmt: skip
FLOWS: Sequence[tuple[str, str, int, str]] = (
    ("shop/cart-0", "pay/db-0", INTRA, "pay/default-deny"),
    ("shop/web-0", "shop/web-0", INTRA, "default-deny"),
    (NODE, "pay/db-0", INTRA, "default-deny"),
    ("shop/cart-0", NODE, INTRA, ""),
    ("shop/cart-0", "203.0.113.7", OUT, ""),
    ("shop/cart-0", "192.0.2.9", OUT, ""),
    ("pay/db-0", "198.51.100.1", OUT, ""),
    ("198.51.100.2", "shop/web-0", IN, ""),
    ("192.0.2.10", "shop/web-0", IN, "shop/default-deny"),
    ("198.51.100.3", "198.51.100.4", NONE, ""),  # a router's
    ("192.0.2.10", "198.51.100.5", NONE, ""),
    ("shop/cart-0", "198.51.100.6", NONE, ""),
)
"""Of all kinds of ends, some of one kind within and outside of what has the same name."""


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Console]:
    """A small cluster with all that may be at an end of a connection."""
    now = now_s()
    flows: list[Any] = [
        _Flow(number, source, target, kind, now - 20 - number, policy)
        for number, (source, target, kind, policy) in enumerate(FLOWS)
    ]
    with console(tmp_path_factory.mktemp("mixed"), flows, now) as made:
        yield made


@pytest.fixture
def looking(mixed: Console, chromium: Browser) -> Iterator[Visit]:
    """A page of somebody who is logged in there."""
    context = new_context(chromium)
    log_in(context, mixed.url)
    made = Visit(context)
    yield made
    context.close()
    assert made.problems == []


def _side(page: Page) -> Locator:
    return page.get_by_role("complementary", name="What is chosen")


def _close(page: Page) -> None:
    _side(page).get_by_role("button", name="Close").click()


def _filter_of(link: str | None) -> str:
    return parse_qs(urlparse(link or "").query)["filter"][0]


def _followed(mixed: Console, page: Page) -> tuple[int, int]:
    """The octets, both ways, of what is chosen on the map, and of the flows that it leads to."""
    side = _side(page)
    octets = side.locator(".numbers [data-value]").first.get_attribute("data-value")
    link = side.get_by_role("link", name="Flows", exact=True).get_attribute("href")
    (found,) = mixed.asked("query", filter=_filter_of(link), measure="bothOctets")["total"]
    return int(octets or 0), found


@pytest.mark.parametrize(
    "place",
    [
        *({"level": level} for level in ("namespace", "pod", "node", "zone")),
        {"focus": "shop"},
        {"focus": "shop/cart-0"},
    ],
    ids=str,
)
def test_flows_of_what_is_on_the_map_are_its_own(
    mixed: Console, looking: Visit, place: dict[str, str]
) -> None:
    page = looking.open(mixed.address("map", **place))
    nodes = page.locator('table[aria-label="On the map"] tbody tr')
    edges = page.locator('table[aria-label="Talks with"] tbody tr')
    count = nodes.count()
    assert count > 3
    seen: set[str] = set()
    for node in range(count):
        nodes.nth(node).click()
        octets, found = _followed(mixed, looking.answered())
        assert found == octets, page.url
        for edge in range(edges.count()):
            edges.nth(edge).click()
            expect(edges).to_have_count(0)
            if page.url not in seen:
                octets, found = _followed(mixed, looking.answered())
                assert found == octets, page.url
                seen.add(page.url)
            _close(page)
            nodes.nth(node).click()
            expect(edges).not_to_have_count(0)
            looking.answered()
        _close(page)
    assert len(seen) > 3


def test_flows_of_a_group_are_its_own(mixed: Console, looking: Visit) -> None:
    by = "dst.policy"  # some are of namespaces, one of the same name is of the whole cluster
    link = mixed.address("explore", by=by, measure="octets", chart="table")
    groups = read.table(looking.open(link), "Groups")
    assert [name for name, _ in groups].count("default-deny") == 1
    assert len(groups) == 4
    for number, (name, octets) in enumerate(groups):
        page = looking.open(link)
        page.locator('table[aria-label="Groups"] tbody tr').nth(number).click()
        looking.until("location.search.includes('filter=')")
        found = mixed.asked("query", filter=_filter_of(page.url), measure="octets")["total"]
        assert found == [octets], name
