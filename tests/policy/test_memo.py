"""A remembered decision is the decision that an evaluation would give, whatever differs between two documents."""

from __future__ import annotations

import copy
import random
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.policy import EmbeddedEngine, load
from gateway.policy.memo import Memo, paths_read

POLICIES = Path(__file__).resolve().parents[2] / "policies"
BASE: dict[str, Any] = {
    "v": 1,
    "now_ns": 1,
    "environment": "dev",
    "tenant": "default",
    "action": {
        "kind": "tool.call",
        "arguments": {"to": "acme-gmbh", "amount_cents": 2500, "reference": "a"},
        "digest": "d",
    },
    "agent": {"id": "demo-agent", "team": "finance", "tier": "standard", "status": "active", "env": "dev"},
    "user": None,
    "session": {"id": "s", "source": "minted", "facts": {}},
    "claimed": {"session": None, "purpose": None},
    "target": {
        "type": "tool",
        "id": "ledger__transfer",
        "server": "ledger",
        "tool": "transfer",
        "kind": "mcp",
        "risk": "high",
        "effect": "write",
        "declared": True,
    },
    "settings": {"undeclared_client_tools": "deny"},
    "limits": {},
    "approval": {"case": "c-1", "votes": [{"person": "olga", "groups": ["treasury"]}], "presented_digest": "d"},
}
VALUES: list[Any] = [
    None, True, False, 0, 1, 1.0, -1, 10_000, 10_001, 10_000.5, 2**60, "", "acme-gmbh", "mallory", "tool.propose",
    "tool.list", "model.invoke", "ledger__close_account", "ledger__get_balance", "read", "destructive", "client",
    "critical", "prod", "observe", "escalate", [], ["x"], {}, {"to": "acme-gmbh"},
]  # fmt: skip


def _leaves(node: Any, at: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    if not isinstance(node, dict):
        return [at]
    return [at, *(path for key in node for path in _leaves(node[key], (*at, key)))]


def _mutated(document: dict[str, Any], pick: random.Random) -> dict[str, Any]:
    changed = copy.deepcopy(document)
    for _ in range(pick.randint(1, 3)):
        path = pick.choice([one for one in _leaves(changed) if one])
        here = changed
        for step in path[:-1]:
            here = here[step]
        if pick.random() < 0.2:
            del here[path[-1]]
        else:
            here[path[-1]] = copy.deepcopy(pick.choice(VALUES))
    return changed


def _engine() -> EmbeddedEngine:
    engine, problems = load(POLICIES)
    assert engine is not None, problems
    return engine


def test_three_thousand_documents_get_the_decision_of_an_engine_that_remembers_nothing() -> None:
    remembering, forgetting = _engine(), _engine()
    assert remembering._memo is not None
    pick = random.Random(7)
    remembered = 0
    for _ in range(3000):
        document = msgspec.json.encode(_mutated(BASE, pick))
        key = remembering._memo.key(msgspec.json.decode(document))
        remembered += key is not None and remembering._memo.recall(key, document) is not None
        forgetting._memo = None
        assert remembering.decide_now(document) == forgetting.decide_now(document)
    assert remembered > 300  # or the comparison above compared nothing


def test_what_policies_do_not_read_does_not_matter() -> None:
    engine = _engine()
    assert engine._memo is not None
    other = copy.deepcopy(BASE)
    other["now_ns"], other["session"]["id"], other["action"]["arguments"]["reference"] = 2, "t", "b"
    first, second = msgspec.json.encode(BASE), msgspec.json.encode(other)
    assert engine._memo.key(msgspec.json.decode(first)) == engine._memo.key(msgspec.json.decode(second))
    assert engine.decide_now(second).input == second  # the record gets its own document


@pytest.mark.parametrize(
    ("source", "paths"),
    [
        ("p if input.a.b == 1", (("a", "b"),)),
        ('p if input["a"]["b c"] == 1', (("a", "b c"),)),
        ("p if { some k; input.a[k] == 1 }", (("a",),)),
        ("p if { input.a.b == 1; count(input.a) > 0 }", (("a",),)),
        ("p if input.a[input.k.z] == 1", (("a",), ("k", "z"))),
        ("p if data.x[input.k].y", (("k",),)),
        ("p if every x in input.a { x > 0 }", (("a",),)),
        ("f(x) if x.n\np if f(input.m)", (("m",),)),
        ("p contains y if { y := [z | z := input.l[_]][0] }", (("l",),)),
        ("p if { x := input; x.y }", None),
        ("p if input[input.k] == 1", None),
        ("p if { some k; input[k] }", None),
        ("p if walk(input, [_, 1])", None),
        ('p if object.get(input, "a", 1) == 1', None),
        ("p if time.now_ns() > input.a", None),
    ],
)
def test_the_parts_that_a_policy_reads_are_found_or_nothing_is_remembered(
    source: str, paths: tuple[tuple[str, ...], ...] | None
) -> None:
    assert paths_read([("x.rego", f"package gateway\n{source}")]) == paths


def test_missing_null_and_kinds_of_numbers_are_told_apart() -> None:
    memo = Memo((("a", "b"),))
    documents = [
        b'{"a":{}}',
        b'{"a":{"b":null}}',
        b'{"a":{"b":1}}',
        b'{"a":{"b":1.0}}',
        b'{"a":{"b":true}}',
        b'{"a":7}',
        b"[]",
    ]
    keys = [memo.key(msgspec.json.decode(document)) for document in documents]
    assert len(set(keys[:5])) == 5
    assert keys[5] == keys[6] == keys[0]  # undefined is undefined, wherever the path ends


def test_what_cannot_be_a_key_is_evaluated_every_time() -> None:
    memo = Memo((("a",),))
    assert memo.key({"a": 10**30}) is None
    assert memo.key({"a": "x" * 5000}) is None


def test_what_reads_the_approval_is_not_told_the_answer_without_one(tmp_path: Path) -> None:
    (tmp_path / "rules.rego").write_text(
        """package gateway

default decision := {"effect": "deny", "rules": ["no"], "reasons": ["No."], "obligations": [], "hidden": false}

decision := {"effect": "escalate", "rules": ["asks"], "reasons": ["Ask."], "obligations": [], "hidden": false} if {
\tinput.approval.case == "c-1"
\tsome vote in input.approval.votes
\t"treasury" in vote.groups
}
"""
    )
    engine, problems = load(tmp_path)
    assert engine is not None, [str(problem) for problem in problems]
    other = {**BASE["approval"], "votes": [{"person": "olga", "groups": []}]}
    for _ in range(2):  # the second time it is remembered
        for approval, effect in ((BASE["approval"], "escalate"), (None, "deny"), (other, "deny")):
            raw = msgspec.json.encode({**BASE, "approval": approval})
            assert engine.decide_now(raw).effect.value == effect
