"""Which keys of a JSON object other readers take for the same: those that differ by case or Unicode form only.

Go's encoding/json, .NET, Jackson and cJSON can match keys without regard to case; Go folds U+017F and U+212A to `s`
and `k` too, Java's `equalsIgnoreCase` both Turkish i, culture-aware comparisons skip invisible characters, and a C
reader ends a key at a NUL. `fold` is NFKC_Casefold (Unicode 3.13, R5) together with these. Protobuf's JSON and Go's
encoding/json/v2 also skip the delimiters inside a name (`maxTokens` for `max_tokens`): `fold_name`.
"""

from __future__ import annotations

import re
import unicodedata

# Default_Ignorable_Code_Point (Unicode, DerivedCoreProperties).
_IGNORABLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f"
    "\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
_INNER_DELIMITERS = re.compile("(?<=[^_-])[_-]+(?=[^_-])")
_TURKISH = re.compile("\u0131\u0307*|i\u0307+")  # dotless i, and i with the dot that the capital one leaves behind
# Compatibility forms stand for up to 18 characters, so a longer key costs too much to normalise on the event loop.
MAX_FOLDED_CHARS = 512


def fold(key: str) -> str:
    """What readers without regard to case and Unicode form take `key` for.

    A key of more than MAX_FOLDED_CHARS characters that is not ASCII is only case-folded: it is no name of anything.
    """
    if "\0" in key:
        key = key[: key.index("\0")]
    if key.isascii():
        return key.lower()
    key = _IGNORABLE.sub("", key)
    if len(key) > MAX_FOLDED_CHARS:
        return key.casefold()
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", key).casefold())
    return unicodedata.normalize("NFKC", _TURKISH.sub("i", _IGNORABLE.sub("", folded)))


def fold_name(key: str) -> str:
    """`fold`, without the `_` and `-` inside of it; those at its ends count (`_id` is not `id`)."""
    return _INNER_DELIMITERS.sub("", fold(key))
