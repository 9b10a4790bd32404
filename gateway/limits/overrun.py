"""A call that used more than was reserved for it: the bound was wrong, or the provider's numbers are."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from gateway.actions import Reservation, usd_text


class Overrun(NamedTuple):
    """What was booked although it was not reserved."""

    tenant: str
    reserved: Reservation
    nanousd: int
    tokens: int

    @property
    def sentence(self) -> str:
        """For people: by how much, and what to look at."""
        reserved = self.reserved
        return (
            f"Action {reserved.id} was booked at {usd_text(self.nanousd)} USD and {self.tokens} tokens; reserved were "
            f"{usd_text(reserved.nanousd)} USD and {reserved.tokens} tokens. Check the prices and max_output_tokens of "
            f"model {reserved.target}, and what its provider reports as usage."
        )


ReportsOverrun = Callable[[Overrun], None]


def report_to_nobody(_overrun: Overrun) -> None:
    """Where nobody listens."""
