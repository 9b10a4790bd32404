"""The one text of a JSON value: RFC 8785, except that integers keep their digits.

RFC 8785 has no form for integers beyond 2^53, because its numbers are doubles. Ids of 64 bits are common in arguments
and in schemas, and agents, policies and servers all get their digits; so the canonical text has them too.
"""

from __future__ import annotations

from typing import Any

import rfc8785


def canonical_json(value: Any) -> bytes:
    """The canonical bytes of `value`: equal for equal JSON values, different for different ones.

    Raises ValueError for what has no such text: NaN, an infinity, half of a surrogate pair, another type than JSON has,
    or nesting that is too deep.
    """
    try:
        try:
            return rfc8785.dumps(value)
        except rfc8785.IntegerDomainError:
            return _written(value)
    except UnicodeError:
        raise ValueError("it holds half a character") from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _written(value: Any) -> bytes:
    if isinstance(value, dict):
        # RFC 8785, section 3.2.3: keys in the order of their UTF-16 code units
        keys = sorted(value, key=lambda key: key.encode("utf-16-be"))
        return b"{" + b",".join(rfc8785.dumps(key) + b":" + _written(value[key]) for key in keys) + b"}"
    if isinstance(value, list | tuple):
        return b"[" + b",".join(map(_written, value)) + b"]"
    if isinstance(value, int) and not isinstance(value, bool):
        return str(int(value)).encode()
    return rfc8785.dumps(value)
