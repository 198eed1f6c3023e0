import os
from pathlib import Path

import pytest

from flowvis.runtime import memory
from flowvis.runtime.memory import (
    Budget,
    BudgetCollector,
    ByteSize,
    Limit,
    limit_of,
    resident,
)

MACHINE = "MemTotal:       16777216 kB\nMemFree:          1 kB\n"  # 16 GiB
UNLIMITED = "9223372036854771712\n"  # version 1's


def system(path: Path, files: dict[str, str]) -> Path:
    for name, text in {"proc/meminfo": MACHINE, **files}.items():
        file = path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return path


V1 = "4:memory:/kubepods/pod1/c1\n3:cpu:/elsewhere\n"
V2 = "0::/kubepods/pod1/c1\n"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, Limit(8 << 30, "half of the machine's")),
        # in a container of version 2, whose own cgroup is the root that it sees
        (
            {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "2147483648\n"},
            Limit(2 << 30, "cgroup"),
        ),
        (
            {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "max\n"},
            Limit(8 << 30, "half of the machine's"),
        ),
        # the least of all above counts
        (
            {
                "proc/self/cgroup": V2,
                "sys/fs/cgroup/kubepods/memory.max": "4294967296\n",
                "sys/fs/cgroup/kubepods/pod1/memory.max": "1073741824\n",
                "sys/fs/cgroup/kubepods/pod1/c1/memory.max": "max\n",
            },
            Limit(1 << 30, "cgroup"),
        ),
        # from memory.high on the kernel slows a process down
        (
            {
                "proc/self/cgroup": V2,
                "sys/fs/cgroup/kubepods/pod1/c1/memory.max": "1073741824\n",
                "sys/fs/cgroup/kubepods/pod1/c1/memory.high": "805306368\n",
            },
            Limit(768 << 20, "cgroup"),
        ),
        (
            {
                "proc/self/cgroup": V1,
                "sys/fs/cgroup/memory/memory.limit_in_bytes": UNLIMITED,
                "sys/fs/cgroup/memory/kubepods/pod1/c1/memory.limit_in_bytes": "536870912\n",
            },
            Limit(512 << 20, "cgroup"),
        ),
        # in a container of version 1 the mount is the container's, whatever the path says
        (
            {
                "proc/self/cgroup": V1,
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "536870912\n",
            },
            Limit(512 << 20, "cgroup"),
        ),
        (
            {
                "proc/self/cgroup": V1 + "0::/\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": UNLIMITED,
            },
            Limit(8 << 30, "half of the machine's"),
        ),
        # what no kernel writes
        (
            {
                "proc/self/cgroup": "odd\n0::/../../etc\n",
                "sys/fs/cgroup/memory.max": "-5\n",
                "proc/meminfo": "",
            },
            Limit(1 << 30, "half of the machine's"),
        ),
    ],
)
def test_the_limit_that_applies(tmp_path: Path, files: dict[str, str], expected: Limit) -> None:
    assert limit_of(None, system(tmp_path, files)) == expected


def test_what_is_configured_wins(tmp_path: Path) -> None:
    files = {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "2147483648\n"}
    found = limit_of(ByteSize.parse("512Mi"), system(tmp_path, files))
    assert found == Limit(512 << 20, "memory.limit")


@pytest.mark.parametrize(
    "files",
    [
        {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "268435456\n"},
        {
            "proc/self/cgroup": "4:memory:/pod\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "268435456\n",
        },
    ],
    ids=["v2", "v1"],
)
def test_no_more_is_configured_than_the_cgroup_has(
    tmp_path: Path, files: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    assert limit_of(ByteSize.parse("512Mi"), system(tmp_path, files)) == Limit(256 << 20, "cgroup")
    said = "memory.limit is 512 MiB, but the cgroup (the container) has 256 MiB: these count"
    assert caplog.messages == [said]


def test_what_only_slows_down_is_no_bound_of_what_is_configured(tmp_path: Path) -> None:
    files = {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.high": "268435456\n"}
    found = limit_of(ByteSize.parse("512Mi"), system(tmp_path, files))
    assert found == Limit(512 << 20, "memory.limit")


def test_here_is_a_limit_too() -> None:
    assert limit_of(None).bytes > 64 << 20
    assert 1 << 20 < resident() < 1 << 40


def test_pages_are_as_large_as_the_kernel_has_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """As of 64 KiB on machines with Arm's processors."""
    monkeypatch.setattr(os, "sysconf", {"SC_PAGE_SIZE": 64 << 10}.__getitem__)
    monkeypatch.setattr(memory, "_read", lambda _: "900 300 200 1 0 250 0")
    assert resident() == 300 << 16


@pytest.mark.parametrize(
    ("text", "size", "written"),
    [
        ("512Mi", 512 << 20, "512Mi"),
        ("2048Mi", 2 << 30, "2Gi"),
        ("2G", 2 * 10**9, "1953125Ki"),
        ("100000001", 100_000_001, "100000001"),
    ],
)
def test_sizes_are_written_as_kubernetes_does(text: str, size: int, written: str) -> None:
    assert ByteSize.parse(text) == size
    assert str(ByteSize(size)) == written
    assert ByteSize.parse(written) == size


@pytest.mark.parametrize("text", ["", "0", "-1Gi", "2GB", "1.5Gi", "31Mi", "\u0661Gi", "9" * 40])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a size|too small: at least 32Mi"):
        ByteSize.parse(text)


def test_what_is_given_out_is_less_than_the_limit() -> None:
    budget = Budget(Limit(1 << 30, "a test"), 100 << 20, {"a": 0.75, "b": 0.25})
    assert budget.given == int(924 * (1 << 20) * 0.8)
    assert budget["a"] // 3 == budget["b"]
    assert budget.rows("b", 1 << 20, 1000) == 184
    assert budget.rows("b", 1 << 20, 50) == 50
    assert budget.rows("b", 1 << 40, 50) == 1


def test_a_limit_that_the_process_fills_alone_leaves_something() -> None:
    assert Budget(Limit(64 << 20, "a test"), 100 << 20, {"a": 1}).given == 16 << 20


def test_shares_are_of_one_whole() -> None:
    with pytest.raises(ValueError, match=r"1\.1 in all"):
        Budget(Limit(1 << 30, "a test"), 0, {"a": 0.6, "b": 0.5})


def test_a_budget_is_shown() -> None:
    budget = Budget(Limit(1 << 30, "a test"), 0, {"a": 0.5, "b": 0.5})
    budget.measure("b", lambda: 77)
    shown = budget.as_dict()
    assert (shown["limitBytes"], shown["limitSource"]) == (1 << 30, "a test")
    assert shown["shares"][1] == {"name": "b", "limitBytes": budget["b"], "bytes": 77}
    samples = {
        (sample.name, sample.labels.get("share")): sample.value
        for family in BudgetCollector("x", budget).collect()
        for sample in family.samples
    }
    assert samples["x_memory_limit_bytes", None] == 1 << 30
    assert samples["x_memory_share_bytes", "b"] == 77
    assert samples["x_memory_share_limit_bytes", "a"] == budget["a"]
