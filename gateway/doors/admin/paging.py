"""Lists: an array of objects with an `id`, a `limit`, and where to go on.

The next page stands in the `Link` header (RFC 8288, rel="next") and, for those who build their own address, as
`x-gateway-next-cursor`. `x-gateway-total-count` says how many items all pages have; `10000+` where counting stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, TypeVar

from fastapi import Query, Request, Response

T = TypeVar("T")

MAX_COUNTED = 10_000

Limit = Annotated[int, Query(ge=1, le=1000, description="At most so many items.")]
Cursor = Annotated[str | None, Query(max_length=200, description="Where the page before ended.")]


def page(
    items: Sequence[T], key: Callable[[T], str], limit: int, cursor: str | None, request: Request, response: Response
) -> Sequence[T]:
    """The items after `cursor`; they must be sorted by `key`."""
    rest = items if cursor is None else [item for item in items if key(item) > cursor]
    shown = rest[:limit]
    say_total(response, len(items))
    if len(rest) > limit:
        point_on(request, response, key(shown[-1]))
    return shown


def say_total(response: Response, total: int | None) -> None:
    """Say in the headers how many there are; None: more than were counted."""
    response.headers["x-gateway-total-count"] = f"{MAX_COUNTED}+" if total is None else str(total)


def point_on(request: Request, response: Response, cursor: str) -> None:
    """Say in the headers where the next page is."""
    url = request.url.include_query_params(cursor=cursor)
    response.headers["link"] = f'<{url.path}?{url.query}>; rel="next"'
    response.headers["x-gateway-next-cursor"] = cursor
