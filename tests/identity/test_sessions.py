from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.actions import Session
from gateway.errors import Refusal
from gateway.identity.sessions import session


def of(
    headers: dict[bytes, bytes], path: str | None = None, trace: str | None = None, credential: str = "key-1"
) -> Session:
    return session(headers, path, trace, credential, lambda: "minted-id")


ALL = {b"x-gateway-session": b"ours", b"x-claude-code-session-id": b"claude", b"mcp-session-id": b"mcp"}


def test_the_first_source_that_is_there_names_the_session() -> None:
    trace = "0af7651916cd43dd8448eb211c80319c"
    headers = dict(ALL)
    found = []
    for drop in (None, b"x-gateway-session", b"x-claude-code-session-id", b"mcp-session-id"):
        if drop is not None:
            del headers[drop]
        found.append(of(headers, "path", trace))
    found += [of({}, None, trace), of({})]
    assert [one.source for one in found] == ["header", "client", "client", "path", "trace", "minted"]
    names = [one.id.partition("~")[0] for one in found]
    assert names == ["ours", "claude", "mcp", "path", trace, "minted-id"]


def test_the_same_name_under_another_credential_is_another_session() -> None:
    first, second = of(ALL, credential="key-1"), of(ALL, credential="key-2")
    assert first.id != second.id
    assert first == of(ALL, credential="key-1")


def test_one_name_is_one_session_however_it_is_sent() -> None:
    assert of({b"x-gateway-session": b"run-7"}).id == of({}, "run-7").id


@pytest.mark.parametrize("name", [b"a" * 129, b"two words", b"a\x00b", b"\xe4", b"<script>", b"a~b"])
def test_a_name_that_is_not_usable_is_refused_in_our_header_and_path(name: bytes) -> None:
    with pytest.raises(Refusal) as caught:
        of({b"x-gateway-session": name})
    assert caught.value.code == "malformed"
    with pytest.raises(Refusal) as caught:
        of({}, name.decode("latin-1"))
    assert caught.value.code == "malformed"


def test_an_empty_header_counts_as_absent() -> None:
    assert of({b"x-gateway-session": b""}).source == "minted"


@given(st.binary(min_size=1, max_size=500), st.binary(min_size=1, max_size=500))
def test_a_clients_own_header_never_fails_and_never_collides(one: bytes, other: bytes) -> None:
    first, second = of({b"mcp-session-id": one}), of({b"mcp-session-id": other})
    assert (first.id == second.id) == (one == other)
    assert len(first.id) <= 128 + 17
    assert first.id.isascii()
    assert first.id.isprintable()
