"""Which proxy leads to a URL, by the customary environment variables; the environment is handed in.

`http_proxy`, `https_proxy`, `all_proxy` and `no_proxy`, lower case before upper case, as curl and most clients
read them. `HTTP_PROXY` in upper case is not read where REQUEST_METHOD is set: there it is a request's header.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

from gateway import known_secrets


def proxy_of(url: str, environ: Mapping[str, str]) -> str | None:
    """The proxy's URL for `url`, or None where the way is direct."""
    parts = urlsplit(url)
    proxy = _variable(environ, f"{parts.scheme}_proxy") or _variable(environ, "all_proxy")
    if proxy is None or parts.hostname is None or _exempt(parts.hostname, _variable(environ, "no_proxy")):
        return None
    found = proxy if "://" in proxy else f"http://{proxy}"
    known_secrets.remember_url("proxy", found)
    return found


def _exempt(host: str, no_proxy: str | None) -> bool:
    """`no_proxy` is a list of domains (each with all below it), addresses, or `*`; ports in it are ignored."""
    for entry in (no_proxy or "").lower().split(","):
        domain = entry.strip().lstrip(".")
        if domain.count(":") == 1:
            domain = domain.partition(":")[0]
        if domain and (domain in ("*", host) or host.endswith("." + domain)):
            return True
    return False


def _variable(environ: Mapping[str, str], name: str) -> str | None:
    value = environ.get(name)
    if value is None and not (name == "http_proxy" and "REQUEST_METHOD" in environ):
        value = environ.get(name.upper())
    return value or None
