"""What a caller is told whose request does not fit: which level, which limit, what is left, when to come back."""

from __future__ import annotations

from gateway.actions import usd_text
from gateway.errors import Refusal
from gateway.limits.account import Account, Spend


def no_place(account: Account, running: int, now_s: int) -> Refusal:
    """As many calls run as may."""
    message = f"{account.level} has {running} calls running, as many as it may; wait for one to end."
    # A place is free when a call ends, which nobody can foretell.
    return Refusal("rate_limited", message, retry_after_s=1, detail=_detail(account, "concurrency", now_s))


def too_many_requests(account: Account, limit: int, wait_s: int, now_s: int) -> Refusal:
    """This minute's requests were made."""
    message = f"{account.level} may make {limit} requests per minute and has made them; try again in {wait_s} s."
    detail = _detail(account, "requests_per_minute", now_s)
    return Refusal("rate_limited", message, retry_after_s=wait_s, detail=detail)


def too_many_tokens(account: Account, needed: int, left: int, limit: int, wait_s: int, now_s: int) -> Refusal:
    """This many tokens do not fit into this minute, or into any."""
    detail = _detail(account, "tokens_per_minute", now_s)
    if needed > limit:
        return Refusal(
            "budget_exhausted",
            f"This call may take {needed} tokens and {account.level} has {limit} per minute, so it can never "
            "pass; ask for fewer output tokens (max_tokens), shorten the prompt, send files inline rather than by "
            "reference, or have the limit raised.",
            detail=detail,
        )
    return Refusal(
        "rate_limited",
        f"This call may take {needed} tokens and {account.level} has {left} of {limit} "
        f"left this minute; try again in {wait_s} s or ask for fewer output tokens (max_tokens).",
        retry_after_s=wait_s,
        detail=detail,
    )


def over_budget(
    account: Account, spend: Spend, unit: str, *, needed: int, left: int, limit: int, others: int = 0
) -> Refusal:
    """This much (`unit`: "nanousd" or "tokens") does not fit into a window's budget, of which `others` have some."""
    windows = account.windows
    resets_at = windows.resets_at(spend.kind)
    left_text, needed_text, limit_text = (
        f"{usd_text(amount)} USD" if unit == "nanousd" else f"{amount} tokens" for amount in (left, needed, limit)
    )
    booked = spend.booked_nanousd if unit == "nanousd" else spend.booked_tokens
    only_reserved = booked + others + needed <= limit
    when = "try again when the calls that are running have ended" if only_reserved else f"wait until {resets_at}"
    return Refusal(
        "budget_exhausted",
        f"This call may cost {needed_text} and {account.level} has {left_text} of {limit_text} left this "
        f"{spend.kind} ({windows.zone}); {when}, ask for less (max_tokens), or have the budget raised.",
        retry_after_s=1 if only_reserved else None,
        detail={
            "limit": "budget",
            "level": account.level,
            "window": spend.window,
            "left": left_text,
            "needed": needed_text,
            "resets_at": resets_at,
        },
    )


def unpriced(account: Account, alias: str) -> Refusal:
    """A model without a price can't be used by a level that has a money budget."""
    return _no_price(
        account,
        alias,
        f"No price of model {alias} is known, so it cannot be held against the money budget of "
        f"{account.level}; give the model a price in the configuration.",
    )


def unpriced_tier(account: Account, alias: str, tier: str) -> Refusal:
    """A service tier whose price is not known."""
    return _no_price(
        account,
        alias,
        f"No price of service tier {tier!r} of model {alias} is known, so it cannot be held against the money budget "
        f"of {account.level}; leave service_tier out, or give the tier a multiplier under price.tiers of the model in "
        "gateway.yaml.",
    )


def unpriced_calls(account: Account, alias: str) -> Refusal:
    """Tools that the provider runs, and whose price is not known."""
    return _no_price(
        account,
        alias,
        f"The request lets the provider of model {alias} run tools of its own (such as a web search), and no price of "
        f"them is known, so it cannot be held against the money budget of {account.level}; leave them out, or give "
        "price.server_tool_usd of the model in gateway.yaml.",
    )


def unpriced_choice(account: Account, alias: str, field: str) -> Refusal:
    """A field by which the provider may charge another price, whatever it is."""
    return _no_price(
        account,
        alias,
        f"The field {field} lets the provider of model {alias} charge a price that is not known, so the request cannot "
        f"be held against the money budget of {account.level}; leave {field} out.",
    )


def _no_price(account: Account, alias: str, message: str) -> Refusal:
    return Refusal("budget_exhausted", message, detail={"limit": "budget", "level": account.level, "model": alias})


def _detail(account: Account, limit: str, now_s: int) -> dict[str, str]:
    refused = account.refused_this_minute(now_s)
    return {"limit": limit, "level": account.level, "refused_this_minute": refused}
