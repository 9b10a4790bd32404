"""What is told of the story: a line per step as it happens, a table at the end, one sentence if it goes wrong."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

WIDEST = 40  # of a cell, in characters


class NotAsTold(Exception):  # noqa: N818 - an answer of the demo, told to its user
    """Something is not as the story says; the message is one sentence for whoever ran it."""


class Step(NamedTuple):
    """One row of the table. `id` is an action's or a case's."""

    name: str
    client: str
    decision: str = "-"
    rule: str = "-"
    outcome: str = ""
    id: str = "-"


def say(text: str) -> None:
    """A line, at once."""
    print(printable(text), flush=True)  # noqa: T201 - what the command is for


def table(steps: Sequence[Step]) -> list[str]:
    """The steps as aligned lines under a heading."""
    heading = ("STEP", "CLIENT", "DECISION", "RULE", "OUTCOME", "ACTION OR CASE")
    rows = [heading, *(tuple(_short(cell) for cell in step) for step in steps)]
    widths = [max(len(row[at]) for row in rows) for at in range(len(heading))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def printable(text: str) -> str:
    """Without what could move the cursor: models and tool servers write some of what is told."""
    return "".join(one if one.isprintable() else " " for one in text)


def _short(text: str) -> str:
    plain = printable(text) or "-"
    return plain if len(plain) <= WIDEST else plain[: WIDEST - 3] + "..."
