"""Which machine this is."""

from pathlib import Path

# systemd's, dbus', and for want of both the kernel's, which is another one after a reboot.
_FILES = ("etc/machine-id", "var/lib/dbus/machine-id", "proc/sys/kernel/random/boot_id")


def machine_id(root: Path = Path("/")) -> str:
    """Return what tells this machine from others, whatever their names; "" if nothing does."""
    for name in _FILES:
        try:
            found = (root / name).read_text(errors="replace").strip()
        except OSError:
            continue
        if found and found != "uninitialized":  # systemd writes this while a machine is prepared
            return found[:256]
    return ""
