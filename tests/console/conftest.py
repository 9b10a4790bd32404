from __future__ import annotations

from ..bank_house import a_bank
from ..gateway_house import a_running_gateway

__all__ = ["a_bank", "a_running_gateway"]
