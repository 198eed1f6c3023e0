from pathlib import Path

import pytest

from flowvis.runtime.machine import machine_id


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"etc/machine-id": "abc\n", "proc/sys/kernel/random/boot_id": "boot"}, "abc"),
        ({"etc/machine-id": "uninitialized\n", "var/lib/dbus/machine-id": "def"}, "def"),
        ({"etc/machine-id": "", "proc/sys/kernel/random/boot_id": "boot\n"}, "boot"),
        ({}, ""),
    ],
)
def test_what_tells_the_machine(tmp_path: Path, files: dict[str, str], expected: str) -> None:
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert machine_id(tmp_path) == expected


def test_this_machine_has_one() -> None:
    assert machine_id()
