"""Which Host headers are the gateway's own."""

from __future__ import annotations

import pytest

from gateway.doors.hosts import Hosts

PUBLIC = "gate.example"
OWN = "k3f9.localhost"
FOREIGN = (
    *("evil.example", "evil.example:8080", "localhost.evil.example", "127.0.0.1.evil.example", "evil.localhost"),
    *("xgate.example", "k3f9.localhost.", "localhost@evil.example", "127.0.0.1 ", "a b", "", ":8080", "[::1", "[::2]"),
    *("10.0.0.5", "0.0.0.0", "127.1", "2130706433", "0x7f.1", "127.0.0.1:port", "löcalhost", "\x00", "a" * 5000),
)


def refused(hosts: Hosts, *headers: str) -> str | None:
    found = hosts.refusal([(b"accept", b"*/*"), *((b"host", one.encode()) for one in headers)])
    return None if found is None else found.code


@pytest.mark.parametrize("bound", ["127.0.0.1", "localhost", "::1"])
@pytest.mark.parametrize("host", FOREIGN)
def test_on_loopback_another_name_is_foreign(bound: str, host: str) -> None:
    hosts = Hosts(bound_host=bound, names=[OWN, PUBLIC])
    for _ in range(2):
        assert refused(hosts, host) == "wrong_host"


@pytest.mark.parametrize("bound", ["127.0.0.1", "0.0.0.0", "::", "10.0.0.5"])
@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:8080", "127.0.0.1:1", "127.0.0.2", "[::1]:8080", "[::1]", OWN, f"{PUBLIC}:443"]
)
def test_this_machine_the_console_and_the_public_name_are_known_everywhere(bound: str, host: str) -> None:
    hosts = Hosts(bound_host=bound, names=[OWN, PUBLIC])
    for _ in range(2):
        assert refused(hosts, host) is None


@pytest.mark.parametrize("bound", ["0.0.0.0", "::", "10.0.0.5"])
def test_bound_to_more_than_this_machine_addresses_are_known_and_names_have_to_be_listed(bound: str) -> None:
    hosts = Hosts(bound_host=bound, allowed=["gateway-1", "*.Example.com"])
    for host in ("10.0.0.5:8080", "192.168.1.9", "[fd00::5]:80", "gateway-1:8080", "a.example.com", "a.b.example.com"):
        assert refused(hosts, host) is None
    for host in ("evil.example", "gateway-2", "example.com", "aexample.com", "a.example.com.evil", "1.2.3.4.evil"):
        assert refused(hosts, host) == "wrong_host"


def test_a_request_has_one_host() -> None:
    hosts = Hosts(bound_host="127.0.0.1")
    assert refused(hosts) == "wrong_host"
    assert refused(hosts, "localhost", "evil.example") == "malformed"
    assert refused(hosts, "localhost", "localhost") == "malformed"
