"""The kernel's settings, and what is said when they may not be changed."""

from pathlib import Path

import pytest

from flowvis.conntrack.sources.source import Conntrack
from flowvis.conntrack.sources.sysctls import ACCOUNTING, ROOT, Sysctls
from flowvis.conntrack.sources.tracking import is_tracked
from flowvis.errors import SystemRefused
from namespaces import run

from . import traffic
from .test_source import nobody, opened

ALL = ("nf_conntrack_acct", "nf_conntrack_timestamp", "nf_conntrack_events")


@pytest.mark.kernel
def test_prepare_turns_on_what_is_off(tracked: None) -> None:
    for name in ALL:
        (ROOT / name).write_text("0")
    assert Conntrack().prepare() == []
    assert [(ROOT / name).read_text().strip() for name in ALL] == ["1", "1", "1"]


@pytest.mark.kernel
def test_with_events_on_the_end_of_what_began_unheard_is_reported(tracked: None) -> None:
    (ROOT / "nf_conntrack_events").write_text("1")
    traffic.udp(("127.0.0.1", 53))
    with opened() as source:
        run("conntrack", "-D", "-p", "udp", "--dport", "53")
        assert len(source.read_events()) == 1


@pytest.mark.kernel
def test_prepare_makes_the_kernel_tell_them(tracked: None) -> None:
    (ROOT / "nf_conntrack_events").write_text("2")
    with nobody():
        assert Conntrack(events=False).prepare() != []
        assert not any("events" in problem for problem in Conntrack().prepare())
    assert Conntrack().prepare() == []
    assert (ROOT / "nf_conntrack_events").read_text().strip() == "1"


@pytest.mark.kernel
def test_prepare_without_events_leaves_them_off(tracked: None) -> None:
    (ROOT / "nf_conntrack_events").write_text("0")
    assert Conntrack(events=False).prepare() == []
    assert (ROOT / "nf_conntrack_events").read_text().strip() == "0"


@pytest.mark.kernel
def test_prepare_says_what_may_not_be_set(tracked: None) -> None:
    for name in ALL:
        (ROOT / name).write_text("0")
    with nobody():
        problems = Conntrack().prepare()
    assert len(problems) == len(ALL)
    for name, problem in zip(ALL, problems, strict=True):
        assert f"`sysctl -w net.netfilter.{name}=1`" in problem
        assert "Permission denied" in problem
    assert "no packets and bytes" in problems[0]


@pytest.mark.kernel
def test_what_is_turned_off_later_is_turned_on_again(tracked: None) -> None:
    source = Conntrack()
    assert source.prepare() == []
    assert source.turned_off() == []
    for name in ("nf_conntrack_acct", "nf_conntrack_events"):
        (ROOT / name).write_text("0")
    counted, told = source.turned_off()
    assert "nf_conntrack_acct was turned off" in counted
    assert "no packets and bytes" in counted
    assert "connections shorter than the poll interval are missed" in told
    assert [(ROOT / name).read_text().strip() for name in ALL] == ["1", "1", "1"]
    assert source.turned_off() == []
    assert (source.stats.turned_off, source.stats.off) == (2, 0)


@pytest.mark.kernel
def test_what_is_turned_off_later_and_may_not_be_set_is_said_once(tracked: None) -> None:
    source = Conntrack()
    assert source.prepare() == []
    (ROOT / "nf_conntrack_timestamp").write_text("0")
    with nobody():
        [problem] = source.turned_off()
        assert "`sysctl -w net.netfilter.nf_conntrack_timestamp=1`" in problem
        assert source.turned_off() == []
        assert (source.stats.turned_off, source.stats.off) == (1, 1)
    (ROOT / "nf_conntrack_timestamp").write_text("1")  # as it says
    assert source.turned_off() == []
    assert source.stats.off == 0
    (ROOT / "nf_conntrack_timestamp").write_text("0")
    with nobody():
        assert len(source.turned_off()) == 1
    assert (source.stats.turned_off, source.stats.off) == (2, 1)


@pytest.mark.kernel
def test_events_that_nobody_asked_for_may_be_off(tracked: None) -> None:
    source = Conntrack(events=False)
    assert source.prepare() == []
    (ROOT / "nf_conntrack_events").write_text("0")
    assert source.turned_off() == []


@pytest.mark.kernel
def test_prepare_knows_when_nothing_is_tracked(namespace: None) -> None:
    [problem] = Conntrack().prepare()
    _, remedy, _ = problem.split("`")
    run("sh", "-c", remedy)
    assert Conntrack().prepare() == []
    assert Conntrack().count() > 0


@pytest.mark.kernel
def test_tracking_of_one_family_is_enough(namespace: None) -> None:
    run("nft", "table ip6 t { chain c { type filter hook prerouting priority 0; ct state new; }; }")
    assert is_tracked(Sysctls().count)


@pytest.mark.kernel
def test_a_table_with_entries_needs_no_probe(tracked: None) -> None:
    traffic.udp(("127.0.0.1", 53))
    run("ip", "link", "set", "lo", "down")
    assert is_tracked(Sysctls().count)


@pytest.mark.kernel
def test_without_loopback_an_empty_table_counts_as_untracked(namespace: None) -> None:
    run("ip", "link", "set", "lo", "down")
    assert not is_tracked(Sysctls().count)


def test_no_conntrack_in_this_kernel(tmp_path: Path) -> None:
    sysctls = Sysctls(tmp_path)
    for read in (sysctls.count, sysctls.maximum):
        with pytest.raises(SystemRefused, match=r"nf_conntrack_\w+ .*is nf_conntrack loaded"):
            read()
    problem = sysctls.enable(ACCOUNTING)
    assert problem is not None
    assert "modprobe nf_conntrack" in problem
    assert len(Conntrack(proc=tmp_path).prepare()) == 4


def test_numbers(tmp_path: Path) -> None:
    (tmp_path / "nf_conntrack_count").write_text("12\n")
    (tmp_path / "nf_conntrack_max").write_text("262144\n")
    source = Conntrack(proc=tmp_path)
    assert (source.count(), source.maximum()) == (12, 262144)


def test_how_long_closed_connections_are_kept(tmp_path: Path) -> None:
    assert Sysctls(tmp_path).closed_s() == {"TIME_WAIT": 120, "CLOSE": 10}
    (tmp_path / "nf_conntrack_tcp_timeout_time_wait").write_text("30\n")
    (tmp_path / "nf_conntrack_tcp_timeout_close").write_text("none\n")
    assert Sysctls(tmp_path).closed_s() == {"TIME_WAIT": 30, "CLOSE": 10}


@pytest.mark.kernel
def test_how_long_the_kernel_keeps_what_nobody_answers(tracked: None) -> None:
    (ROOT / "nf_conntrack_udp_timeout").write_text("7")
    seconds = Sysctls().unanswered_s()
    assert seconds[17] == 7
    assert (seconds[6], seconds[1], seconds[58]) == (120, 30, 30)
    assert all(value > 0 for value in seconds.values())
