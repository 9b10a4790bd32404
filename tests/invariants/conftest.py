from __future__ import annotations

from tests.bank_house import a_bank
from tests.e2e.fixtures import house, make_house
from tests.gateway_house import a_running_gateway
from tests.refund_house import a_desk

__all__ = ["a_bank", "a_desk", "a_running_gateway", "house", "make_house"]
