"""A key of one's own makes a sign-in that nobody else had a hand in, and so a quorum of two possible where one operator makes
all links."""

from __future__ import annotations

import os
import time
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from gateway.approvals.machine import _has_fewer
from gateway.errors import Refusal
from gateway.identity import Role
from gateway.identity.sign_in_keys import HEADER, private_key, proof, verified
from tests.bank_house import Bank
from tests.gateway_house import CONFIG, use_link
from tests.invariants.counter import Counter
from tests.invariants.test_5_makers import TWO, linked

HOST = "gateway.test"


@pytest.fixture
def key() -> Ed25519PrivateKey:
    return Ed25519PrivateKey.generate()


def line(key: Ed25519PrivateKey) -> str:
    return f"{key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()} rita@laptop"


@pytest.fixture
async def counter(bank: Bank, key: Ed25519PrivateKey) -> Counter:
    counter = Counter(bank)
    await counter.configure(config=f"{CONFIG}sign_in: {{keys: {{rita: {line(key)!r}}}}}\n")
    for person in ("rita", "ruth", "rosa"):
        await counter.people.add(person, name=person, roles=[Role.REVIEWER], by="operator")
    return counter


async def admit(counter: Counter, value: str, host: str = HOST) -> httpx.Response:
    async with counter.bank.running.client(host=host) as nobody:
        return await nobody.post("/api/v1/sign-in/key", headers={HEADER: value})


async def test_a_key_of_ones_own_and_a_link_of_the_operator_fill_two_places(
    counter: Counter, agent: httpx.AsyncClient, key: Ed25519PrivateKey
) -> None:
    await counter.asks(TWO)
    case_id = await counter.bank.case(agent)
    running = counter.bank.running
    async with running.operator() as operator:
        ruth, rosa = await linked(counter, "ruth", operator), await linked(counter, "rosa", operator)
    secret, value = proof(key, HOST, "rita", time.time(), os.urandom)
    admitted = await admit(counter, value)
    assert (admitted.status_code, admitted.json()["person"]) == (201, "rita")
    assert secret not in admitted.text
    async with running.client(origin="http://gateway.test") as rita:
        assert (await use_link(rita, secret)).status_code == 303
        assert await counter.approve(ruth, case_id) == "pending"
        assert await counter.approve(rosa, case_id) == "pending"
        assert await counter.approve(rita, case_id) == "approved"
        (mine,) = [one for one in (await rita.get("/api/v1/sessions")).json() if one["person"] == "rita"]
    assert mine["makers"] == []
    await counter.verified()


async def test_a_vote_through_the_operator_does_not_keep_a_person_from_voting_with_their_own_key(
    counter: Counter, agent: httpx.AsyncClient, key: Ed25519PrivateKey
) -> None:
    await counter.asks(TWO)
    case_id = await counter.bank.case(agent)
    running = counter.bank.running
    async with running.operator() as operator:
        through_link, rosa = await linked(counter, "rita", operator), await linked(counter, "rosa", operator)
    assert await counter.approve(through_link, case_id) == "pending"
    assert await counter.approve(rosa, case_id) == "pending"
    secret, value = proof(key, HOST, "rita", time.time(), os.urandom)
    assert (await admit(counter, value)).status_code == 201
    async with running.client(origin="http://gateway.test") as rita:
        assert (await use_link(rita, secret)).status_code == 303
        assert (await counter.shown(rita, case_id))["may_decide"] == {"ok": True, "why": ""}
        assert await counter.approve(rita, case_id) == "approved"
        votes = (await counter.shown(rita, case_id))["votes"]
    assert {(one["person"], tuple(one["makers"])) for one in votes} == {("rita", ()), ("rosa", ("operator",))}
    await counter.verified()


def test_fewer_makers_are_some_of_those_before() -> None:
    """Asked of votes and of findings."""
    assert _has_fewer((), ("operator",))
    assert _has_fewer(("operator",), ("mal", "operator"))
    assert not _has_fewer(("operator",), ("operator",))
    assert not _has_fewer(("mal",), ("operator",))
    assert not _has_fewer(("operator",), ())


async def test_a_proof_is_worth_nothing_to_others(counter: Counter, key: Ed25519PrivateKey) -> None:
    secret, value = proof(key, HOST, "rita", time.time(), os.urandom)
    assert (await admit(counter, value)).status_code == 201
    async with counter.bank.running.client(origin="http://gateway.test") as rita:
        assert (await use_link(rita, secret)).status_code == 303
    again = await admit(counter, value)
    assert (again.status_code, again.json()["code"]) == (409, "conflict")
    async with counter.bank.running.client(origin="http://gateway.test") as thief:
        assert (await use_link(thief, secret)).status_code == 401
    now_s = time.time()
    faulty = [
        proof(Ed25519PrivateKey.generate(), HOST, "rita", now_s, os.urandom)[1],
        proof(key, HOST, "ruth", now_s, os.urandom)[1],  # of somebody who has no key
        proof(key, HOST, "rita", now_s - 600, os.urandom)[1],
        proof(key, "other.example", "rita", now_s, os.urandom)[1],  # made for another gateway
        proof(key, HOST, "rita", now_s, os.urandom)[1].replace("rita", "rita "),
        "rita",
        "",
    ]
    for one in faulty:
        answer = await admit(counter, one)
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated"), one


async def test_who_was_removed_is_not_let_in_by_their_key(counter: Counter, key: Ed25519PrivateKey) -> None:
    await counter.people.remove("rita", by="operator")
    answer = await admit(counter, proof(key, HOST, "rita", time.time(), os.urandom)[1])
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")


def test_key_files_of_openssh_are_read(tmp_path: Path, key: Ed25519PrivateKey) -> None:
    path = tmp_path / "id_ed25519"
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
    _, value = proof(private_key(path), HOST, "rita", 1000.0, os.urandom)
    assert verified({"rita": line(key)}, HOST, value, 1010.0).person == "rita"
    with pytest.raises(Refusal, match="clocks differ"):
        verified({"rita": line(key)}, HOST, value, 2000.0)


@pytest.mark.parametrize("given", ["", "ssh-rsa AAAA", "ssh-ed25519 AAAA", "ssh-ed25519"])
async def test_what_is_no_public_key_is_told_by_the_configuration(bank: Bank, given: str) -> None:
    text = f"{CONFIG}sign_in: {{keys: {{rita: {given!r}}}}}\n"
    (bank.running.folder / "gateway.yaml").write_text(text)
    (problem,) = [one for one in await bank.running.app.reload("test") if one.severity == "error"]
    assert "ssh-ed25519" in problem.message + problem.mend


async def test_no_two_persons_have_the_same_key(bank: Bank, key: Ed25519PrivateKey) -> None:
    same = line(key).removesuffix("rita@laptop") + "another comment"
    text = f"{CONFIG}sign_in: {{keys: {{rita: {line(key)!r}, ruth: {same!r}}}}}\n"
    (bank.running.folder / "gateway.yaml").write_text(text)
    (problem,) = [one for one in await bank.running.app.reload("test") if one.severity == "error"]
    assert "rita and ruth have the same key" in problem.message + problem.mend
