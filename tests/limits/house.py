"""What the tests of limits share: actions, models, and a ledger of `spend` on disk."""

from __future__ import annotations

import itertools
import sqlite3
from typing import Any

import msgspec

from gateway.actions import Action, Agent, Caller, Cost, Kind, ModelTarget, Session, ToolTarget, Trace, Usage

MODEL = ModelTarget(
    alias="demo",
    provider="demo",
    model="demo",
    input_nanousd_per_mtok=1_000_000_000,  # 1,000 nano-dollars a token
    output_nanousd_per_mtok=2_000_000_000,
    max_output_tokens=4_096,
)
TOOL = ToolTarget(server="ledger", tool="transfer", server_kind="mcp", owner="x", risk="high", effect="write")

_ids = itertools.count(1)


def act(
    agent: str = "reader",
    user: str | None = None,
    *,
    tenant: str = "default",
    kind: Kind = Kind.MODEL_INVOKE,
    content: object = "hi",
    session: str = "session",
    **arguments: Any,
) -> Action:
    """A new model call (or another action) with `arguments` in its head, such as `max_tokens`."""
    number = next(_ids)
    body = msgspec.json.encode({"model": "demo", "messages": [{"role": "user", "content": content}], **arguments})
    return Action(
        id=f"action-{number}",
        kind=kind,
        door="openai.chat",
        caller=Caller(Agent(id=agent, tenant=tenant, team="team", use_case="case"), user, "key-1", "key"),
        session=Session(session, "minted"),
        trace=Trace("1" * 32, "2" * 16),
        target="demo",
        request_id=f"request-{number}",
        received_ns=0,
        arguments=arguments,
        body=body,
    )


def cost(input_tokens: int, output_tokens: int, *, estimated: bool = False) -> Cost:
    """What `MODEL` takes for so many tokens."""
    return Cost(
        nanousd=1_000 * input_tokens + 2_000 * output_tokens,
        usage=Usage(input_tokens=input_tokens, output_tokens=output_tokens, estimated=estimated),
        estimated=estimated,
    )


def spend_table() -> sqlite3.Connection:
    """An empty table `spend`, as the store makes it."""
    connection = sqlite3.connect(":memory:")
    connection.execute(
        'CREATE TABLE spend (tenant TEXT, level TEXT, "window" TEXT, replica TEXT, nanousd INTEGER NOT NULL, '
        'tokens INTEGER NOT NULL, mac BLOB, PRIMARY KEY (tenant, level, "window", replica))'
    )
    return connection


def rows(connection: sqlite3.Connection) -> dict[tuple[str, str, str], tuple[int, int]]:
    """The table as a mapping, summed over replicas."""
    table = connection.execute(
        'SELECT tenant, level, "window", sum(nanousd), sum(tokens) FROM spend GROUP BY tenant, level, "window"'
    )
    return {(tenant, level, window): (nanousd, tokens) for tenant, level, window, nanousd, tokens in table}
