"""Numbers with a fraction or an exponent, as JSON text: judged as doubles, so they must be exactly those doubles.

A number is exact where its decimal value is that of the double's shortest spelling: `0.1`, `1.50` and `1e3` are,
`9007199254740993.0`, `1e-400` and `1E400` are not. What is judged, shown to people and written is then the number
that was sent, whatever decimals the next reader computes with. Integers keep their digits and are not looked at here.
"""

from __future__ import annotations

from decimal import Decimal, DecimalException

# The longest spelling of a double that anybody needs has 17 digits and an exponent; zeros may pad it.
MAX_FLOAT_CHARS = 400


def exact_float(text: str) -> float | None:
    """The double that `text`, a JSON number, is exactly; None where there is none. `-0.0` is one, `1E400` is not."""
    if len(text) > MAX_FLOAT_CHARS:
        return None
    number = float(text)
    spelling = repr(number)
    if spelling == text:
        return number
    try:
        return number if Decimal(text) == Decimal(spelling) else None
    except DecimalException:  # an exponent beyond what even Decimal takes
        return None
