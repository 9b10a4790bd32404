"""The vault: what is kept at which level, what is shown, and that erasing leaves the log whole."""

from __future__ import annotations

import base64
import hmac
from hashlib import sha256
from typing import Any

import pytest

from gateway.actions import Kind
from gateway.audit import records
from gateway.audit.appending import Appending
from gateway.audit.view import Filter
from gateway.errors import Refusal
from tests.audit.house import BOTH, House

SECRET = b"the secret of the payload"


async def one(log: Appending, house: House, body: bytes = SECRET) -> str:
    action = house.action()
    await log.append(house.intent(action))
    await log.append(house.result(action, body))
    return action.id


async def states(log: Appending, action_id: str) -> dict[str, tuple[str, str | None]]:
    found: dict[str, tuple[str, str | None]] = {}
    for record in (await log.query(Filter(action=action_id))).records:
        for payload in (await log.show(record["id"])).payloads:
            found[payload.name] = (payload.state, payload.text)
    return found


@BOTH
@pytest.mark.parametrize(
    ("capture", "kept"),
    [
        ("full", {"arguments", "policy_input", "response"}),
        ("arguments", {"arguments", "policy_input"}),
        ("metadata", set()),
    ],
)
async def test_the_capture_level_decides_what_is_kept_and_the_record_says_what_is_not(
    house: House, capture: str, kept: set[str]
) -> None:
    async with house.log(capture=capture) as log:
        found = await states(log, await one(log, house))
        assert {name for name, (state, _) in found.items() if state == "kept"} == kept
        assert {state for name, (state, _) in found.items() if name not in kept} <= {"not_kept"}
        for record in (await log.query(Filter(agent="reader"))).records:
            for part in record["payloads"]:
                assert (part["key"] is None) == (part["name"] not in kept)
                assert (f"not_kept.{part['name']}" in record["labels"]) == (part["name"] not in kept)
    assert house.verify().ok


@BOTH
async def test_over_the_cap_the_commitment_and_size_are_of_the_whole(house: House) -> None:
    body = b"x" * 2000
    async with house.log(payload_cap_bytes=1000) as log:
        action_id = await one(log, house, body)
        assert (await states(log, action_id))["response"] == ("not_kept", None)
        record = (await log.query(Filter(action=action_id))).records[0]
        assert record["payloads"][0]["size"] == 2000
        assert record["payloads"][0]["key"] is None
        assert record["labels"]["not_kept.response"] == "over 1000 bytes"
        leaf_id = record["id"]
        row = await log.writer.read(
            lambda c: c.execute(
                "SELECT sealed, wrapped FROM payload JOIN payload_key USING (leaf_id) WHERE leaf_id = ?", (leaf_id,)
            ).fetchone()
        )
        from gateway.audit.vault import Sealed

        (item,) = log.vault.open(leaf_id, Sealed(*row))
        # Whoever has the whole document can still prove that this is what was answered.
        message = b"gateway/payload/v1\x00response\x00application/json\x00" + body
        assert record["payloads"][0]["commitment"] == "hmac-sha256:" + hmac.new(item.salt, message, sha256).hexdigest()


async def test_payloads_are_nowhere_in_the_clear(house: House) -> None:
    async with house.log() as log:
        await one(log, house)
        files = [path for path in house.data_dir.rglob("*") if path.is_file()]
        assert len(files) > 5
        for path in files:
            assert SECRET not in path.read_bytes()


@BOTH
async def test_what_is_shown_can_be_checked_with_its_salt_and_other_forms_survive(house: House) -> None:
    async with house.log() as log:
        action_id = await one(log, house, b"\xff\x00binary")
        record = (await log.query(Filter(action=action_id))).records[0]
        shown = await log.show(record["id"])
        (payload,) = shown.payloads
        assert payload.base64 is not None
        assert payload.salt is not None
        assert base64.b64decode(payload.base64) == b"\xff\x00binary"
        message = b"gateway/payload/v1\x00response\x00application/json\x00\xff\x00binary"
        digest = hmac.new(base64.b64decode(payload.salt), message, sha256).hexdigest()
        assert payload.commitment == "hmac-sha256:" + digest
        assert not (await log.show(record["id"], disclose=False)).payloads


@BOTH
async def test_equal_payloads_have_unequal_commitments(house: House) -> None:
    async with house.log() as log:
        await one(log, house)
        await one(log, house)
        found = (await log.query(Filter(type="action.result"))).records
        assert found[0]["payloads"][0]["commitment"] != found[1]["payloads"][0]["commitment"]


@BOTH
async def test_an_erased_payload_is_gone_and_the_log_verifies(house: House) -> None:
    async with house.log() as log:
        action_id = await one(log, house)
        record = (await log.query(Filter(action=action_id))).records[0]
        key, sealed = await log.writer.read(
            lambda c: c.execute(
                "SELECT wrapped, sealed FROM payload JOIN payload_key USING (leaf_id) WHERE leaf_id = ?",
                (record["id"],),
            ).fetchone()
        )
        await log.erase(record["id"], person="olga", reason="request 7")
        assert (await states(log, action_id))["response"] == ("erased", None)
        assert (await states(log, action_id))["arguments"][0] == "kept"
        (erased,) = (await log.query(Filter(type="payload.erased"))).records
        assert erased["labels"] == {"reason": "request 7", "subject.record": record["id"]}
        assert erased["actor"]["user"] == "olga"
        with pytest.raises(Refusal, match="were erased before"):
            await log.erase(record["id"], person="olga", reason="again")
        with pytest.raises(Refusal, match="No record"):
            await log.erase("nothing", person="olga", reason="x")
    report = house.verify()
    assert report.ok
    assert report.payloads_erased == 1
    for path in house.data_dir.rglob("*"):
        if path.is_file():
            assert bytes(key) not in path.read_bytes()
            assert bytes(sealed) not in path.read_bytes()


@BOTH
async def test_a_refusal_before_the_decision_keeps_no_content(house: House) -> None:
    async with house.log() as log:
        action = house.action(kind=Kind.MODEL_INVOKE, target="nope", body=SECRET)
        refusal = Refusal("rate_limited", "Slow down.")
        await log.append(records.refused(action, None, None, refusal))
        denied = house.action()
        await log.append(records.refused(denied, house.tool, house.decision, Refusal("denied_by_policy", "No.")))
        first: dict[str, Any] = (await log.query(Filter(action=action.id))).records[0]
        assert first["payloads"] == []
        assert first["result"]["status"] == "blocked"
        assert first["model"] == {"requested": "nope", "served": None, "provider": None}
        second = (await log.query(Filter(action=denied.id))).records[0]
        assert {part["name"] for part in second["payloads"]} == {"arguments", "policy_input"}
        assert second["result"]["status"] == "denied"
