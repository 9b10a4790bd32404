"""What the kernel says of a process tree: CPU time and resident memory."""

from __future__ import annotations

import re
from pathlib import Path


def _tree(pid: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            stat = (entry / "stat").read_text()
        except OSError:
            continue
        children.setdefault(int(stat[stat.rindex(")") + 2 :].split()[1]), []).append(int(entry.name))
    found, waiting = [], [pid]
    while waiting:
        one = waiting.pop()
        found.append(one)
        waiting += children.get(one, [])
    return found


def cpu_us(pid: int) -> float:
    """CPU time of all threads of the process tree so far, in microseconds (schedstat counts nanoseconds)."""
    total = 0
    for one in _tree(pid):
        for thread in Path(f"/proc/{one}/task").glob("*"):
            try:
                total += int((thread / "schedstat").read_text().split()[0])
            except OSError:
                continue
    return total / 1000


def resident_mb(pid: int) -> float:
    """Resident memory of the process tree, in MB."""
    total = 0
    for one in _tree(pid):
        try:
            match = re.search(r"^VmRSS:\s+(\d+) kB", Path(f"/proc/{one}/status").read_text(), re.MULTILINE)
        except OSError:
            continue
        total += int(match[1]) if match else 0
    return total / 1024
