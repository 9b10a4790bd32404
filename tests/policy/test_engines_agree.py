"""The engine in the process and OPA decide alike: recorded documents, thousands of changed ones, one difference fails.

OPA is the real server, or its library where the program is not here (`tests/opa.py`).
"""

from __future__ import annotations

import random
import shutil
from collections import Counter
from pathlib import Path

import msgspec
import pytest

from gateway.actions import Kind
from gateway.config import OpaServer as OpaSettings
from gateway.policy import EmbeddedEngine, load
from gateway.quickstart.opa_server import find
from tests import opa, refund_house
from tests.policy import probes
from tests.policy.asking import POLICIES, asked, folder, ledger
from tests.policy.both import at_any_line, changed, readable, recorded, said

PROBES = probes.folders()
BANK = ("teams: {}", "teams: {finance: {servers: {ledger: {max_risk: critical}}}}")


def policies(name: str, root: Path) -> EmbeddedEngine:
    """The shipped policies, those of the houses that tests live in, or probing ones."""
    if name in PROBES:
        folder(root, dict(PROBES[name]))
    else:
        shutil.copytree(POLICIES, root)
        grants = root / "grants" / "data.yaml"
        if name == "refund house":
            grants.write_text(refund_house.GRANTS)
        elif name == "bank house":
            grants.write_text(grants.read_text().replace(*BANK))
    engine, problems = load(root)
    assert engine is not None, [str(problem) for problem in problems]
    return engine


async def compare(name: str, tmp_path: Path, *, seed: int, count: int, at_length: bool = False) -> Counter[str]:
    """Ask both about `count` documents; the rules that spoke, by how often.

    `at_length`: so many that some have several faults, of which each engine may name another.
    """
    engine = policies(name, tmp_path / "policies")
    pick, documents, spoke = random.Random(seed), recorded(), Counter[str]()
    plain = [msgspec.json.encode(one) for one in documents]
    async with opa.deciding(tmp_path / "opa", engine) as other:
        for at in range(count):
            document = plain[at] if at < len(plain) else changed(pick.choice(documents), pick)
            here, there = said(engine.decide_now(document)), said(await other.decide(document))
            if at_length and tuple(here["rules"]) == ("policy_error",):
                here, there = at_any_line(here), at_any_line(there)
            assert here == there, (seed, at, document)
            spoke.update(here["rules"])
    return spoke


@pytest.mark.parametrize(
    "name", ["shipped", "bank house", "refund house", "probes-0", "probes-1", "probes-2", "probes"]
)
async def test_both_engines_decide_alike(name: str, tmp_path: Path) -> None:
    spoke = await compare(name, tmp_path, seed=1, count=500 if name in PROBES else 1000)
    assert len(spoke) >= 9, spoke  # or it compared little


@pytest.mark.drill
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", [2, 3])
@pytest.mark.parametrize("name", ["shipped", "bank house", "refund house", "probes"])
async def test_both_engines_decide_alike_at_length(name: str, seed: int, tmp_path: Path) -> None:
    await compare(name, tmp_path, seed=seed, count=10_000, at_length=True)


async def test_what_engines_do_not_read_alike_is_asked_of_none(tmp_path: Path) -> None:
    engine = policies("shipped", tmp_path / "policies")
    deep: object = 1
    for _ in range(101):
        deep = [deep]
    async with opa.deciding(tmp_path / "opa", engine) as other:
        for value in (2**64, -(2**63) - 1, 1e20, 10**400, deep):
            document = asked(Kind.TOOL_CALL, ledger("transfer"), {"to": "acme-gmbh", "amount_cents": value})
            assert not readable(document)
            for decision in (engine.decide_now(document), await other.decide(document)):
                assert (decision.effect, decision.rules) == ("deny", ("policy_error",))
                assert "64 bits" in decision.reasons[0] or "nest deeper" in decision.reasons[0]


# Faults that OPA forgives: its index rules a rule out before the built-in fails, and it iterates over nothing.
FORGIVEN = {
    "a prefix of a number": 'startswith(input.action.arguments.to, "http:")',
    "a pattern of a number": 'glob.match("*.org", [], input.action.arguments.to)',
    "a list that is a number": "some one in input.action.arguments.to\none.bad",
    "a condition that does not hold": 'count(input.action.arguments.to) > 3\ninput.action.kind == "tool.list"',
}


@pytest.mark.parametrize("condition", FORGIVEN.values(), ids=FORGIVEN)
async def test_a_fault_that_opa_forgives_is_a_deny_all_the_same(condition: str, tmp_path: Path) -> None:
    rule = f'package gateway\n\ndeny contains {{"rule": "bad", "reason": "Bad."}} if {{\n{condition}\n}}\n'
    always = 'allow contains {"rule": "fine", "reason": "Fine."} if input.environment == "dev"\n'
    entry = (POLICIES / "gateway" / "decision.rego").read_text()
    nothing = 'otherwise_%s contains {"rule": "x", "reason": "x"} if input.environment == "nowhere"\n'
    sets = "".join(nothing % effect for effect in ("deny", "escalate", "allow"))
    unused = 'escalate contains {"rule": "x", "reason": "x"} if input.environment == "nowhere"\n'
    files: dict[str, str | bytes] = {"decision.rego": entry, "rules.rego": f"{rule}\n{always}\n{sets}\n{unused}"}
    engine, problems = load(folder(tmp_path / "policies", files))
    assert engine is not None, [str(problem) for problem in problems]
    document = asked(Kind.TOOL_CALL, ledger("transfer"), {"to": 5})
    assert engine.decide_now(document).rules == ("policy_error",)
    if find() is None:
        opa.missing("the opa program is not here, and this is about the server")
    server = opa.serve(tmp_path / "opa", engine)
    try:
        for cross_check, rules in ((False, ("fine",)), (True, ("policy_error",))):
            settings = OpaSettings(timeout_s=10, cross_check=cross_check)
            async with opa.asking(server.url, engine, settings=settings) as both:
                decision = await both.decide(document)
                assert decision.rules == rules
                assert decision.decision_id
                assert both.faults == cross_check
    finally:
        server.stop()
