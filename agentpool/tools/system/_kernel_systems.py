"""Finds the kernel's own file systems, such as ``/proc``, whose files are not data.

In these file systems, the memory and the environment of processes, with their keys, can be read
like files.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final

KERNEL_SYSTEMS: Final = frozenset({
    "proc", "sysfs", "debugfs", "tracefs", "securityfs", "configfs", "cgroup", "cgroup2", "bpf",
    "pstore", "efivarfs", "devpts", "mqueue", "fusectl", "nsfs",
})  # fmt: skip
"""The types of file systems without ordinary files."""

MOUNTS: Final = "/proc/self/mountinfo"


def kernel_devices(mounts: str = MOUNTS) -> frozenset[int]:
    """Return the devices of the kernel's own file systems. Empty: they are unknown."""
    found: set[int] = set()
    with (
        contextlib.suppress(OSError),
        Path(mounts).open(encoding="utf-8", errors="replace") as lines,
    ):
        for line in lines:
            # 25 30 0:23 / /proc rw,nosuid - proc proc rw
            before, _, after = line.partition(" - ")
            if after.partition(" ")[0] in KERNEL_SYSTEMS:
                major, _, minor = before.split()[2].partition(":")
                found.add(os.makedev(int(major), int(minor)))
    return frozenset(found)
