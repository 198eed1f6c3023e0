"""What people see of a run."""

import io

import pytest
from rich.console import Console

from flowvis.lab.report import Report

STAGE = {
    "stage": "denied connections", "received": 1_234_567_890, "sent": 1_234_567_880,
    "merged": 0, "dropped": {"lost": 1_000_003}, "held": 0, "imbalance": -999_993, "missing": 0,
}  # fmt: skip


@pytest.mark.parametrize("width", [40, 80, 200])
def test_numbers_of_long_runs_are_whole(width: int) -> None:
    books = {"balanced": False, "stages": [STAGE]}
    shown = io.StringIO()
    console = Console(file=shown, width=width)
    report = Report(ledgers={"flow-exporter node-1 before 2": books})
    console.print(report.render(), soft_wrap=True)
    (line,) = (line for line in shown.getvalue().splitlines() if "denied" in line)
    assert line.split() == [
        *("exporter", "node-1", "before", "2", "denied", "connections"),
        *("1,234,567,890", "1,234,567,880", "0", "1,000,003", "0", "-999,993"),
    ]
