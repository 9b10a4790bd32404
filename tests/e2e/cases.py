"""Cases as the person sees them who decides: found by who asked, decided through the API."""

from __future__ import annotations

from typing import Any

import httpx

from tests.e2e.gateway_process import Agent, Gateway, within


class OpenCase:
    """One case; `shown` is what the person was shown when it was found."""

    def __init__(self, gateway: Gateway, shown: dict[str, Any]) -> None:
        self._gateway = gateway
        self.shown = shown
        self.id: str = shown["id"]

    def vote(self, decision: str, guidance: str = "") -> httpx.Response:
        """The operator's vote on what was shown."""
        said = {"decision": decision, "presented_digest": self.shown["presented_digest"], "guidance": guidance}
        return self._gateway.operator("POST", f"/approvals/{self.id}/reviews", said)

    def approve(self) -> None:
        voted = self.vote("approve")
        assert voted.status_code == 200, voted.text

    def deny(self, guidance: str) -> None:
        voted = self.vote("deny", guidance)
        assert voted.status_code == 200, voted.text

    def now(self) -> dict[str, Any]:
        """The case as it stands."""
        found = self._gateway.operator("GET", f"/approvals/{self.id}")
        assert found.status_code == 200, found.text
        case: dict[str, Any] = found.json()
        return case

    def ended(self, *states: str) -> dict[str, Any]:
        """The case once it is in one of `states`."""
        within(lambda: self.now()["state"] in states, f"the case {self.id} is {' or '.join(states)}: {self.now()}")
        return self.now()


def open_case(agent: Agent, seconds: float = 20) -> OpenCase:
    """The newest case that waits for this agent, once there is one."""
    gateway = agent.gateway
    path = f"/approvals?status=pending&agent={agent.name}"
    found = within(lambda: gateway.operator("GET", path).json(), f"a case of {agent.name}", seconds)
    return OpenCase(gateway, found[0])
