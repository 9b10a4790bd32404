"""The API as commands use it: the gateway of a data directory, asked as the local operator."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway.commands.shared import PROBLEM, CommandError

if TYPE_CHECKING:
    import httpx

NOTE = "gateway.json"
TOKEN = "operator.token"  # noqa: S105 - the name of a file
_TIMEOUT_S = 30.0


class Api:
    """Asks the gateway that runs on `data_dir`. Raises CommandError with what it answered, or that it did not."""

    def __init__(self, data_dir: Path) -> None:
        self.total: str | None = None  # how many items the last list has on all its pages
        self.url = running_at(data_dir)
        try:
            self._token = (data_dir / TOKEN).read_text().strip()
        except OSError as error:
            raise CommandError(
                f"The operator's token {data_dir / TOKEN} cannot be read ({error.strerror}): run this as the user that"
                " runs the gateway."
            ) from error

    def get(self, path: str, **query: Any) -> Any:
        """GET; what is None is left out of the query."""
        params = {name: str(value) for name, value in query.items() if value is not None}
        return self._answer("GET", path, params=params)

    def post(self, path: str, body: Any = None) -> Any:
        """POST with a JSON body."""
        return self._answer("POST", path, json={} if body is None else body)

    def patch(self, path: str, body: Any) -> Any:
        """PATCH with a JSON body."""
        return self._answer("PATCH", path, json=body)

    def delete(self, path: str) -> Any:
        """DELETE."""
        return self._answer("DELETE", path)

    def _answer(self, method: str, path: str, **more: Any) -> Any:
        response = ask(method, f"{self.url}/api/v1{path}", headers={"authorization": f"Bearer {self._token}"}, **more)
        if response.is_success:
            self.total = response.headers.get("x-gateway-total-count")
            return response.json()
        raise CommandError(told(response))


def running_at(data_dir: Path) -> str:
    """The address of the gateway that runs on `data_dir`. Raises CommandError if none does."""
    try:
        note = json.loads((data_dir / NOTE).read_text())
        return str(note["url"]).rstrip("/")
    except FileNotFoundError:
        raise CommandError(
            f"No gateway runs on the data directory {data_dir}: start it with `gateway serve`, or name another with"
            " --data-dir."
        ) from None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise CommandError(
            f"The note {data_dir / NOTE} cannot be read ({error}): restart the gateway, which writes it anew."
        ) from error


def ask(method: str, url: str, **more: Any) -> httpx.Response:
    """One request. Raises CommandError if there is no answer."""
    import httpx

    # What runs on this machine is not reached through a proxy, whatever the environment says.
    local = httpx.URL(url).host in {"127.0.0.1", "localhost", "::1"}
    try:
        with httpx.Client(timeout=_TIMEOUT_S, trust_env=not local) as client:
            return client.request(method, url, **more)
    except httpx.HTTPError as error:
        raise CommandError(
            f"The gateway at {url.split('/api/')[0]} does not answer ({type(error).__name__}): see whether it still"
            " runs, or start it with `gateway serve`.",
            PROBLEM,
        ) from error


def told(response: httpx.Response) -> str:
    """What a refusal says, for people."""
    try:
        problem = response.json()
        detail = str(problem["detail"])
    except (ValueError, KeyError, TypeError):
        return f"The gateway answered {response.status_code} without saying why; its log may know more."
    lines = [str(one.get("detail", "")) for one in problem.get("errors", []) if one.get("pointer") is None]
    return "\n  ".join([detail, *lines])
