"""Whether parsing a JSON text would take long, told from its bytes before it is parsed.

Objects and arrays are what costs: a parser makes one of each in about 0.1 us, holding the interpreter lock, and 16 MiB
can hold eight million of them. Brackets inside strings count as well, which only makes the count too high.
"""

from __future__ import annotations

from typing import Final

MAX_CONTAINERS: Final = 100_000
"""In one JSON text that is parsed into Python objects; about 15 ms."""


def has_too_many_containers(text: bytes) -> bool:
    """Whether `text` may hold more than MAX_CONTAINERS objects and arrays."""
    if len(text) <= 2 * MAX_CONTAINERS:
        return False
    return text.count(b"[") + text.count(b"{") > MAX_CONTAINERS
