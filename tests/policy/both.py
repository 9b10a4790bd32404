"""Input documents to ask two engines about: recorded ones, changed at random in every way that agents can think of."""

from __future__ import annotations

import copy
import random
import re
from typing import Any

import msgspec

from gateway.actions import Agent, Decision, Kind, Target
from gateway.policy.reading import Unreadable, read_document
from tests.policy.asking import AGENT, asked, client, git, ledger, model

TEXTS = [
    *("", " ", "acme-gmbh", "ACME-GMBH", "acme-gmbh ", "аcme-gmbh", "acme-gmbh\u0000", "acme\u200b-gmbh", "mallory"),
    *("north-supplies", "demo-agent", "somebody", "finance", "platform", "standard", "active", "suspended", "dev"),
    *("prod", "tool.call", "tool.list", "tool.propose", "model.invoke", "resource.read", "ledger__transfer", "\u2028"),
    *("ledger__close_account", "ledger", "git", "client", "mcp", "read", "write", "egress", "destructive", "low"),
    *(
        "medium",
        "high",
        "critical",
        "observe",
        "escalate",
        "deny",
        "remote",
        "worktree",
        "😀",
        "é",
        "e\u0301",
        "ß",
        "İ",
    ),
    *("10000", "1e4", "true", "null", "../../etc", "%s%v%", "a.b.c", '"', "\\", "<&>", "\u202eabc", "\ud7ff", "\uffff"),
    *("https://example.com/a", "HTTPS://EXAMPLE.COM", "li@example.com", "li@example.org", "x" * 300),
]
NUMBERS: list[Any] = [
    *(0, 1, -1, 2, 99, 100, 9_999, 10_000, 10_001, 2**31, 2**53 - 1, 2**53, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1),
    *(-(2**53) - 1, -(2**63), 2**64, -(2**63) - 1, 10**30, 10**309, 0.0, -0.0, 1.0, 0.5, 0.1, 0.30000000000000004),
    *(9_999.99, 10_000.0, 10_000.000001, 1e-7, 1e-300, 5e-324, 1e15, 1e16, 1e19, 1e20, 1e300, 123456.789),
]
OTHERS: list[Any] = [
    None,
    True,
    False,
    [],
    {},
    [1],
    ["acme-gmbh"],
    {"to": "acme-gmbh"},
    [[]],
    {"": ""},
    [None],
    {"a": [1]},
]


def recorded() -> list[dict[str, Any]]:
    """Documents as the gateway makes them: every kind of action, every tool that the shipped policies know."""
    found: list[bytes] = []
    transfers = [{"to": "acme-gmbh", "amount_cents": cents} for cents in (1, 10_000, 10_001, 10_000.0)]
    targets: list[tuple[Target, list[dict[str, Any]]]] = [
        (ledger("get_balance"), [{}]),
        (ledger("list_payees"), [{}]),
        (ledger("close_account"), [{}]),
        (ledger("transfer"), [*transfers, {"to": "mallory", "amount_cents": 5}, {}]),
        (client("Bash", "write", "high"), [{"command": "ls"}]),
        (client("Read", "read", "low"), [{"path": "/etc/passwd"}]),
        (client("Odd", "destructive", "critical", declared=False), [{}]),
    ]
    targets += [
        (git(f"git_{effect}", effect), [{"repo": "a"}]) for effect in ("read", "write", "egress", "destructive")
    ]
    agents = [AGENT, Agent(id="coder", team="platform", tier="trusted", env="prod", labels={"a": "b"})]
    for agent in agents:
        for environment, undeclared in (("dev", "deny"), ("prod", "observe")):
            for target, several in targets:
                for kind in (Kind.TOOL_CALL, Kind.TOOL_PROPOSE, Kind.TOOL_LIST):
                    for arguments in several:
                        one = asked(
                            kind, target, arguments, agent=agent, environment=environment, undeclared=undeclared
                        )
                        found.append(one)
            found.append(asked(Kind.MODEL_INVOKE, model(), {"model": "demo", "stream": True, "max_tokens": 5}))
    documents = [msgspec.json.decode(one) for one in found]
    approved = copy.deepcopy(documents[3])
    votes = [{"person": "olga", "groups": ["treasury", "board"]}, {"person": "noor", "groups": []}]
    approved["approval"] = {"case": "c-1", "votes": votes, "presented_digest": "d"}
    approved["limits"] = {"agent": {"day": {"usd_left": 5, "tokens_left": 2**40}}}
    approved["session"]["facts"] = {"tainted": True, "calls": 7}
    return [*documents, *[approved] * 10]


def changed(document: dict[str, Any], pick: random.Random) -> bytes:
    """The document with one to four changes: a field dropped, added, emptied, or of another type."""
    one = copy.deepcopy(document)
    for _ in range(pick.randint(1, 4)):
        path = pick.choice(_paths(one))
        here = one
        for step in path[:-1]:
            here = here[step]
        how = pick.random()
        if how < 0.15:
            del here[path[-1]]
        elif how < 0.3 and isinstance(here[path[-1]], dict):
            here[path[-1]][pick.choice(TEXTS)] = any_value(pick)
        else:
            here[path[-1]] = any_value(pick, is_argument=path[:2] == ("action", "arguments"))
    return _written(one)


def any_value(pick: random.Random, *, is_argument: bool = False) -> Any:
    """A value that should not stand there. Fractions and numbers beyond 64 bits come from agents only: in arguments."""
    kind = pick.random()
    if kind < 0.4:
        return pick.choice(TEXTS)
    if kind < 0.75:
        number = pick.choice(NUMBERS) if pick.random() < 0.8 else pick.randint(-(10**6), 10**6)
        return number if is_argument or (isinstance(number, int) and -(2**63) <= number < 2**64) else 7
    if kind < 0.78 and is_argument:
        deep: Any = 1
        for _ in range(pick.choice((5, 90, 105, 200))):
            deep = [deep] if pick.random() < 0.5 else {"a": deep}
        return deep
    return copy.deepcopy(pick.choice(OTHERS))


def _paths(node: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    below = [path for key, value in inner if len(at) < 8 for path in _paths(value, (*at, key))]
    return [*([at] if at else []), *below]


def _written(document: dict[str, Any]) -> bytes:
    try:
        return msgspec.json.encode(document)
    except OverflowError:
        import json

        return json.dumps(document).encode()


def readable(document: bytes) -> bool:
    """Whether engines are asked about it at all."""
    try:
        read_document(document)
    except Unreadable:
        return False
    return True


def at_any_line(answer: dict[str, Any]) -> dict[str, Any]:
    """What was `said`, without the line of a fault: of several faults in one document, each engine may meet another."""
    return {**answer, "notes": [re.sub(r"\.rego:\d+", ".rego", note) for note in answer["notes"]]}


def said(decision: Decision) -> dict[str, Any]:
    """What two engines must agree in. What a fault is called is each engine's own."""
    whole = msgspec.to_builtins(decision)
    if decision.rules == ("policy_error",):
        whole["reasons"] = []
    return {name: whole[name] for name in ("effect", "rules", "reasons", "notes", "obligations", "hidden")}
