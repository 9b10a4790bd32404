"""Requests as bytes: nothing a caller gives can end a line or change where a request goes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.upstreams.wire_head import aim, head


def test_a_url_becomes_a_request_line_and_a_host() -> None:
    where = aim("POST", "http://models.example:8081/v1/chat?x=1#part")
    assert where[:3] == ("http", "models.example", 8081)
    assert where.start == b"POST /v1/chat?x=1 HTTP/1.1\r\nhost: models.example:8081\r\n"


@pytest.mark.parametrize(
    ("url", "port", "host"),
    [
        ("https://a.example", 443, b"a.example"),
        ("https://a.example:443/", 443, b"a.example"),
        ("http://a.example:443/", 443, b"a.example:443"),
        ("http://[::1]:9/x", 9, b"[::1]:9"),
        ("http://[::1]/", 80, b"[::1]"),
    ],
)
def test_the_host_header_names_the_port_only_where_it_is_unusual(url: str, port: int, host: bytes) -> None:
    where = aim("GET", url)
    assert where.port == port
    assert where.start.endswith(b"\r\nhost: " + host + b"\r\n")


@pytest.mark.parametrize(
    "url",
    [
        "http://a.example/x\r\nx-evil: 1",
        "http://a.example/\tx",
        "http://a.example/a b",
        "http://a.example/ü",
        "http://user:secret@a.example/",
        "ftp://a.example/",
        "http:///x",
        "/v1/chat",
        "http://a.example:99999/",
        "",
    ],
)
def test_a_url_that_can_mislead_is_refused(url: str) -> None:
    with pytest.raises(ValueError):
        aim("POST", url)


@pytest.mark.parametrize("method", ["GET /x HTTP/1.1\r\nx:", "", "HEAD", "CONNECT", "PO ST"])
def test_a_method_that_can_mislead_is_refused(method: str) -> None:
    with pytest.raises(ValueError):
        aim(method, "http://a.example/")


@pytest.mark.parametrize(
    "name", [b"x evil", b"x:evil", b"", b"x\r\ny", b"host", b"Content-Length", b"transfer-encoding", b"Connection"]
)
def test_header_names_are_tokens_and_not_the_ones_of_the_framing(name: bytes) -> None:
    with pytest.raises(ValueError):
        head(b"", [(name, b"1")], 0, framed=True)


@given(st.lists(st.tuples(st.sampled_from([b"a", b"x-b"]), st.binary(max_size=40)), max_size=5))
def test_no_header_value_ever_makes_a_line_of_its_own(headers: list[tuple[bytes, bytes]]) -> None:
    try:
        raw = head(b"GET / HTTP/1.1\r\n", headers, 7, framed=True)
    except ValueError:
        assert any(set(value) & {0, 10, 13} for _, value in headers)
    else:
        assert raw.split(b"\r\n")[1:-2] == [name + b": " + value for name, value in headers] + [b"content-length: 7"]
        assert raw.count(b"\n") == raw.count(b"\r") == len(headers) + 3
