"""Which proxy leads to a URL, by the customary environment variables; the environment is handed in.

`http_proxy`, `https_proxy`, `all_proxy` and `no_proxy`, lower case before upper case, as curl and most clients
read them. `HTTP_PROXY` in upper case is not read where REQUEST_METHOD is set: there it is a request's header.
"""

from __future__ import annotations

import urllib.request
from collections.abc import Mapping
from urllib.parse import urlsplit


def proxy_of(url: str, environ: Mapping[str, str]) -> str | None:
    """The proxy's URL for `url`, or None where the way is direct."""
    parts = urlsplit(url)
    proxy = _variable(environ, f"{parts.scheme}_proxy") or _variable(environ, "all_proxy")
    if proxy is None or parts.hostname is None:
        return None
    exempt = _variable(environ, "no_proxy")
    host = parts.hostname if parts.port is None else f"{parts.hostname}:{parts.port}"
    if exempt and urllib.request.proxy_bypass_environment(host, {"no": exempt}):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def _variable(environ: Mapping[str, str], name: str) -> str | None:
    value = environ.get(name)
    if value is None and not (name == "http_proxy" and "REQUEST_METHOD" in environ):
        value = environ.get(name.upper())
    return value or None
