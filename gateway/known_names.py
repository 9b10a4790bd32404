"""Which agents, tools, models and groups there are, for checking the names in policies and grants."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from gateway.catalog.manifests import Manifest
from gateway.config import Config
from gateway.policy.known import Known

_DEFAULT_TIER = "standard"  # of an agent that was registered without one


class Named(Protocol):
    """What an agent is called, and what it belongs to."""

    @property
    def id(self) -> str: ...
    @property
    def team(self) -> str: ...
    @property
    def tier(self) -> str: ...
    @property
    def use_case(self) -> str: ...


def known_names(
    config: Config, manifests: Iterable[Manifest], registered: Iterable[Named], *, complete: bool = True
) -> Known:
    """`manifests` are all that can be read, also of servers that are switched off; `registered` are agents beside
    those of the configuration, and `complete` says whether these are all."""
    agents: list[Named] = [*config.agents, *registered]
    described = tuple(manifests)
    return Known(
        tools={one.server: frozenset(one.tools) for one in described},
        risks={f"{one.server}__{name}": tool.risk for one in described for name, tool in one.tools.items()},
        models=frozenset(one.alias for one in config.models),
        providers=frozenset(config.providers),
        agents=frozenset(one.id for one in agents),
        teams=frozenset(one.team for one in agents if one.team),
        tiers=frozenset({_DEFAULT_TIER, *(one.tier for one in agents)}),
        use_cases=frozenset(one.use_case for one in agents if one.use_case),
        agents_complete=complete,
        groups=frozenset(config.approvals.groups),
        undeclared=config.undeclared_client_tools,
    )
