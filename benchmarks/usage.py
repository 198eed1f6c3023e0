"""What a process has used, as /proc tells it."""

import os
from pathlib import Path


def cpu_seconds(pid: int) -> float:
    """User and system time of all threads of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def peak_mb(pid: int) -> float:
    """The most memory that a process had resident; ValueError of one that has ended."""
    return _megabytes(pid, "VmHWM")


def resident_mb(pid: int) -> float:
    """What memory a process has resident now; ValueError of one that has ended."""
    return _megabytes(pid, "VmRSS")


def _megabytes(pid: int, name: str) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(name):
            return round(int(line.split()[1]) / 1024, 1)
    raise ValueError(f"no {name}")
