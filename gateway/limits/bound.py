"""What is reserved for an action: the most that it can use and cost, or a refusal where nobody can say."""

from __future__ import annotations

from typing import NamedTuple

from gateway.actions import Action, ModelTarget, Target
from gateway.errors import Refusal
from gateway.limits import refusals
from gateway.limits.account import Account
from gateway.limits.bounds import asked_of, bound_nanousd, output_bound, read_request
from gateway.pricing import Asked, bound


class Bound(NamedTuple):
    """The most that an action can cost, and what it asks for that is priced apart from tokens."""

    input_tokens: int = 0
    output_tokens: int = 0
    nanousd: int = 0
    tier: str = ""
    server_calls: int = 0
    has_unknown_price: bool = False


def bound_of(action: Action, target: Target, accounts: tuple[Account, ...]) -> Bound:
    """Raises `malformed`, and `budget_exhausted` where a money budget meets a price that is not known."""
    if not isinstance(target, ModelTarget):
        return Bound()
    request = read_request(action)
    if request.is_plain and target.priced and (target.tariff is None or not target.tariff.always_searches):
        output_tokens = output_bound(action.arguments, target)
        return Bound(request.tokens, output_tokens, bound_nanousd(target, request.tokens, output_tokens))
    asked = asked_of(action, target, request)
    unknown = _has_unknown_price(asked, target)
    if unknown or not target.priced:
        for account in accounts:
            if account.money_is_limited:
                raise _refusal(account, asked, target)
    return Bound(
        input_tokens=asked.input_tokens + asked.media_tokens,
        output_tokens=asked.output_tokens,
        nanousd=bound(target.prices, asked),
        tier=asked.tier,
        server_calls=asked.server_calls,
        has_unknown_price=unknown,
    )


def _has_unknown_price(asked: Asked, target: ModelTarget) -> bool:
    if not (asked.tier or asked.server_calls or asked.unpriced):
        return False
    prices = target.prices
    if target.priced and not prices.dearest() and not prices.request_nanousd:  # a model that costs nothing
        return False
    is_known = prices.has_tier(asked.tier) and (prices.call_nanousd is not None or not asked.server_calls)
    return bool(asked.unpriced) or not is_known


def _refusal(account: Account, asked: Asked, target: ModelTarget) -> Refusal:
    alias = target.alias
    if not target.priced:
        return refusals.unpriced(account, alias)
    if asked.unpriced:
        return refusals.unpriced_choice(account, alias, asked.unpriced)
    if not target.prices.has_tier(asked.tier):
        return refusals.unpriced_tier(account, alias, asked.tier)
    return refusals.unpriced_calls(account, alias)
