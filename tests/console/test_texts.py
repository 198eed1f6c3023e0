"""Texts of records are shown as texts, all of them, whatever whoever sent them put there."""

from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from waiting import block_until

from . import read
from .opened import Visit, console, log_in, new_context, now_s, report, stored
from .traffic import Connection

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("console")]

ODD = {
    "\u202egnp.exe": r"\u{202e}gnp.exe",
    "bell\x07\x1b[31m": r"bell\u{7}\u{1b}[31m",
    "two\r\nlines\u2028three": r"two\u{d}\u{a}lines\u{2028}three",
    "join\u200bed\u2066": r"join\u{200b}ed\u{2066}",
    "<img src=x onerror=alert(1)>": "<img src=x onerror=alert(1)>",
    "<script>alert(1)</script>": "<script>alert(1)</script>",
}
"""Names, and how they are seen."""
UNSEEN = r"/[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2066-\u2069]/"


def test_nothing_in_a_name_is_markup_or_unseen(tmp_path: Path, chromium: Browser) -> None:
    now = now_s()
    records = []
    for number, name in enumerate(ODD):
        (record,) = Connection(number, "shop/cart-0", "shop/x", 80, 6000, now - 60).records()
        ends = {"destinationPodName": name, "destinationServicePortName": f"shop/{name}"}
        policy = {
            "ingressNetworkPolicyName": name,
            "ingressNetworkPolicyRuleName": name,
            "ingressNetworkPolicyNamespace": "shop",
            "ingressNetworkPolicyType": 1,
            "ingressNetworkPolicyRuleAction": 2,
        }
        records.append(record | ends | policy)
    with console(tmp_path, [], now) as made:
        report(made.aggregator, *records)
        aggregator = made.aggregator
        aggregator.settled(len(records))
        block_until(
            lambda: aggregator.sql("SELECT count() FROM flows") == [[stored(aggregator)]],
            aggregator.log,
        )
        context = new_context(chromium)
        log_in(context, made.url)
        visit = Visit(context)
        visit.page.on("dialog", lambda dialog: visit.problems.append(dialog.message))
        by = {"page": "explore", "by": "src.pod,dst.pod"}
        for page, given in (
            ("flows", {}),
            ("policies", {}),
            ("explore", by),
            ("explore", by | {"chart": "sankey"}),
        ):
            shown = visit.open(made.address(**({"page": page} | given)))
            text = shown.locator("main").inner_text()
            missing = [seen for seen in ODD.values() if seen not in text.replace("\n", "")]
            assert missing == [], f"{page} {given}"
            assert not shown.evaluate(f"{UNSEEN}.test(document.body.textContent)"), page
            assert shown.locator("main :is(img, script, [onerror])").count() == 0
        shown = visit.open(made.address("flows", raw=1))
        for row in shown.locator('table[aria-label="Flow records"] tbody tr').all():
            row.click()
            expect(shown.locator(".record .raw")).to_contain_text("destinationPodName")
            assert not shown.evaluate(f"{UNSEEN}.test(document.body.textContent)")
        query = "SELECT destinationPodName FROM flows"
        shown = visit.open(made.address("sql", query=query))
        shown.get_by_role("button", name="Run").click()
        expect(shown.get_by_role("columnheader", name="destinationPodName")).to_be_visible()
        assert {row[0] for row in read.table(shown, "Rows of the query")} == set(ODD.values())
        context.close()
        assert visit.problems == []
