from __future__ import annotations

from ..gateway_house import a_running_gateway

__all__ = ["a_running_gateway"]
