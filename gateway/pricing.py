"""What a provider counted, what each kind of token costs, and the price of one by the other.

Integers only: nano-US-dollars per million tokens. A count without a rate of its own is priced at the dearest rate that
is known, and the result says that it is estimated: it may be above the provider's bill, and is not known to be it.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

MTOK = 1_000_000

PLAIN_TIERS = frozenset({"", "default", "standard", "on_demand"})
"""Names that providers give to the service tier that their plain prices are for."""

CHEAPER_TIERS = frozenset({"flex", "batch"})
"""Service tiers that every provider that has them sells below its plain prices."""

OPEN_TIERS = frozenset({"", "auto"})
"""What a request says that leaves the tier to the provider. OpenAI: `auto`, the default, is what its project is set to.
Source: https://platform.openai.com/docs/api-reference/chat/create (service_tier)."""


class UsageDetails(msgspec.Struct, frozen=True, kw_only=True):
    """What an answer counted beyond plain input and output."""

    tier: str = ""  # the service tier that served, as the answer names it
    cache_write_tokens: int = 0  # part of the input
    cache_write_long_tokens: int = 0  # part of the input, kept for an hour or longer; not in `cache_write_tokens`
    image_input_tokens: int = 0  # part of the input
    audio_input_tokens: int = 0  # part of the input
    audio_output_tokens: int = 0  # part of the output
    unknown_input_tokens: int = 0  # part of the input: of a kind that has no rate
    unknown_output_tokens: int = 0  # part of the output: of a kind that has no rate
    server_calls: int = 0  # web searches and other tools that the provider ran
    is_unsure: bool = False  # it counted something that is not understood, or could be read in two ways
    provider_nanousd: int = 0  # what the provider itself says that the call costs
    is_doubtful: bool = False  # its numbers contradict each other: the truth may be higher than any of them


PLAIN_DETAILS = UsageDetails()


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens. `cached_input_tokens` are part of `input_tokens`, `reasoning_tokens` of `output_tokens`."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0
    reasoning_tokens: int = 0
    estimated: bool = False  # True: an upper bound, not what the provider said
    details: UsageDetails | None = None  # None: there is nothing beyond the counts above


class Rates(msgspec.Struct, frozen=True, kw_only=True):
    """Nano-US-dollars per million tokens. None: no rate of its own is known."""

    input: int
    output: int
    cached_input: int | None = None  # None: as input
    cache_write: int | None = None
    cache_write_long: int | None = None
    image_input: int | None = None  # None: as the dearest of text
    audio_input: int | None = None
    audio_output: int | None = None
    other_output: int | None = None  # the dearest of what else a model can put out: pictures, film
    thinking_output: int | None = None  # of all output of an answer that was thought about; None: as output

    @property
    def dearest(self) -> int:
        """The highest rate there is."""
        rates: list[int] = [rate for rate in msgspec.structs.astuple(self) if rate is not None]
        return max(rates)

    @property
    def dearest_text_input(self) -> int:
        """The highest rate that a token of a text prompt can have: fresh, cached or written to a cache."""
        return max(self.input, self.cached_input or 0, self.cache_write or 0, self.cache_write_long or 0)

    @property
    def long_write(self) -> int | None:
        """The rate of a long cache write; twice that of a short one where it has none of its own, which is more than
        any provider takes (Anthropic: 2 to 1.25). None: neither is known."""
        if self.cache_write_long is not None or self.cache_write is None:
            return self.cache_write_long
        return 2 * self.cache_write

    @property
    def dearest_output(self) -> int:
        """The highest rate that a token of an answer can have."""
        return max(self.output, self.audio_output or 0, self.other_output or 0, self.thinking_output or 0)


class Band(msgspec.Struct, frozen=True, kw_only=True):
    """The rates of one service tier for prompts above a size. `is_assumed`: derived, not listed by anybody."""

    rates: Rates
    tier: str = ""
    above_tokens: int = 0
    is_assumed: bool = False


class Tariff(msgspec.Struct, frozen=True, kw_only=True):
    """All that is known of a model's prices. The first band holds the plain rates."""

    bands: tuple[Band, ...]
    open_tiers: tuple[str, ...] = ()  # where the provider itself may put a request that leaves its tier open
    call_nanousd: int | None = None  # of one server-side tool call, such as a web search
    request_nanousd: int = 0  # of each request, beside its tokens
    always_searches: bool = False  # the model searches the web without being asked to
    has_other_charges: bool = False  # it charges for what is not counted in an answer, such as pictures
    highest: tuple[tuple[int, int, int], ...] = ()
    """(for prompts above so many tokens, rate of text, rate of output): the highest of a request that leaves its tier
    open. Made from the bands, so that the bound of a plain request is found quickly."""

    def __post_init__(self) -> None:
        rates = [(band.above_tokens, band.rates) for band in self.bands if band.tier in ("", *self.open_tiers)]
        highest = [(above, _dearest_text(one), one.dearest_output) for above, one in rates]
        msgspec.structs.force_setattr(self, "highest", tuple(highest))

    def bound(self, input_tokens: int, output_tokens: int) -> int:
        """The most that so many tokens of text can cost in a request that chooses nothing, in nano-dollars."""
        amount = max(
            [
                input_tokens * text + output_tokens * output
                for above, text, output in self.highest
                if above < input_tokens or not above
            ]
        )
        return -(-amount // MTOK) + self.request_nanousd

    def band(self, tier: str, input_tokens: int) -> Band | None:
        """The band of a tier for a prompt of this size; None where the tier has no rates."""
        name = "" if tier in PLAIN_TIERS else tier
        found: Band | None = None
        for band in self.bands:
            if (
                band.tier == name
                and (band.above_tokens < input_tokens or not band.above_tokens)
                and (found is None or band.above_tokens > found.above_tokens)
            ):
                found = band
        return found

    def has_tier(self, tier: str) -> bool:
        """Whether a request for this service tier can be priced, or costs no more than the plain one."""
        return tier in PLAIN_TIERS or tier in OPEN_TIERS or tier in CHEAPER_TIERS or self.band(tier, 0) is not None

    def dearest(self, tier: str | None = None) -> int:
        """The highest rate of a tier, whatever the size of the prompt; of all tiers where none is named."""
        return max(band.rates.dearest for band in self.bands if tier is None or band.tier == tier)

    def dearest_rates(self, input_tokens: int, tiers: tuple[str, ...] | None = None) -> Rates:
        """For each kind of token the highest rate of these tiers, or of all, for a prompt of this size."""
        bands = [
            band.rates
            for band in self.bands
            if (band.above_tokens < input_tokens or not band.above_tokens) and (tiers is None or band.tier in tiers)
        ]
        return Rates(
            **{name: max((getattr(rates, name) or 0 for rates in bands), default=0) or None for name in _OPTIONAL},
            input=max(rates.input for rates in bands),
            output=max(rates.output for rates in bands),
        )


_OPTIONAL = tuple(name for name in Rates.__struct_fields__ if name not in ("input", "output"))


class Charge(NamedTuple):
    """A price. `is_estimated`: it isn't known to be the provider's bill. `is_counted`: it follows from what was
    counted, so it is booked as it is; else the truth may be higher and no less than what was reserved is booked."""

    nanousd: int
    is_estimated: bool
    is_counted: bool


def charge(tariff: Tariff, usage: Usage) -> Charge:
    """What `usage` costs, rounded up to the next nano-dollar."""
    details = usage.details or PLAIN_DETAILS
    band = tariff.band(details.tier, usage.input_tokens)
    doubtful = details.is_doubtful or usage.estimated
    estimated = doubtful or details.is_unsure or tariff.has_other_charges
    counted = not doubtful
    if band is not None:
        rates, estimated = band.rates, estimated or band.is_assumed
    elif details.tier in CHEAPER_TIERS:
        plain = tariff.band("", usage.input_tokens)
        rates, estimated = (plain or tariff.bands[0]).rates, True
    elif details.tier in OPEN_TIERS:  # the answer only repeats that the tier was left open
        rates, estimated = tariff.dearest_rates(usage.input_tokens, ("", *tariff.open_tiers)), True
    else:  # a tier nobody gave a price for may cost more than the dearest one that is known
        rates, estimated, counted = tariff.dearest_rates(usage.input_tokens), True, False
    dearest = 0 if details is PLAIN_DETAILS else tariff.dearest(None if band is None else band.tier)
    inputs, unsure_input = _input(rates, usage, details, dearest)
    outputs, unsure_output = _output(rates, usage, details, dearest)
    nanousd = -(-(inputs + outputs) // MTOK) + tariff.request_nanousd
    estimated = estimated or unsure_input or unsure_output
    if details.server_calls:
        if tariff.call_nanousd is None:
            estimated, counted = True, False
        else:
            nanousd += details.server_calls * tariff.call_nanousd
    if details.provider_nanousd > nanousd:
        nanousd, estimated = details.provider_nanousd, True
    return Charge(nanousd, estimated, counted)


def _input(rates: Rates, usage: Usage, details: UsageDetails, dearest: int) -> tuple[int, bool]:
    """(nano-dollars times MTOK of the input, whether that is an estimate)."""
    cached = rates.input if rates.cached_input is None else rates.cached_input
    if details is PLAIN_DETAILS:
        fresh = max(0, usage.input_tokens - usage.cached_input_tokens)
        return fresh * rates.input + usage.cached_input_tokens * cached, False
    pictures = rates.dearest_text_input if rates.image_input is None else rates.image_input
    parts = [
        (usage.cached_input_tokens, cached),
        (details.cache_write_tokens, rates.cache_write),
        (details.cache_write_long_tokens, rates.long_write),
        (details.image_input_tokens, pictures),
        (details.audio_input_tokens, rates.audio_input),
        (details.unknown_input_tokens, None),
    ]
    unsure = (details.image_input_tokens > 0 and rates.image_input is None) or (
        details.cache_write_long_tokens > 0 and rates.cache_write_long is None
    )
    return _spread(usage.input_tokens, rates.input, parts, dearest, unsure)


def _output(rates: Rates, usage: Usage, details: UsageDetails, dearest: int) -> tuple[int, bool]:
    """(nano-dollars times MTOK of the output, whether that is an estimate)."""
    plain, unsure = rates.output, False
    if rates.thinking_output is not None and rates.thinking_output != plain:
        unsure = True  # which of the two the provider takes depends on a mode that the answer does not name
        if usage.reasoning_tokens:
            plain = max(plain, rates.thinking_output)
    if details is PLAIN_DETAILS:
        return usage.output_tokens * plain, unsure
    parts = [(details.audio_output_tokens, rates.audio_output), (details.unknown_output_tokens, None)]
    return _spread(usage.output_tokens, plain, parts, dearest, unsure)


def _spread(
    total: int, plain: int, parts: list[tuple[int, int | None]], dearest: int, unsure: bool
) -> tuple[int, bool]:
    """Price the parts of a total and what is left of it; parts that overlap are taken dearest first."""
    priced = []
    for count, rate in parts:
        if count:
            unsure = unsure or rate is None
            priced.append((dearest if rate is None else rate, count))
    amount, left = 0, total
    for rate, count in sorted(priced, reverse=True):
        taken = min(count, left)
        unsure = unsure or taken < count
        amount += taken * rate
        left -= taken
    return amount + left * plain, unsure


class Asked(NamedTuple):
    """The most that a request can make the provider count, and what it asks for beside tokens."""

    input_tokens: int = 0  # of text, pictures and documents
    media_tokens: int = 0  # of sound, film and kinds that nobody here knows
    output_tokens: int = 0
    tier: str = ""  # the service tier that it names
    server_calls: int = 0  # of tools that the provider runs
    writes_cache: bool = False  # it asks for a prompt cache
    unpriced: str = ""  # a field by which the agent chooses a price that is not known


def bound(tariff: Tariff, asked: Asked) -> int:
    """The most that such a request can cost, in nano-dollars, where its tokens stay within the bound."""
    size = asked.input_tokens + asked.media_tokens
    tiers = _possible_tiers(tariff, asked.tier)
    bands = [
        (band.rates, tariff.dearest(band.tier))
        for band in tariff.bands
        if band.tier in tiers and (band.above_tokens < size or not band.above_tokens)
    ]
    if not tariff.has_tier(asked.tier):
        bands = [(tariff.dearest_rates(size), tariff.dearest())]
    highest = 0
    for rates, dearest in bands:
        text = _dearest_text(rates)
        if asked.writes_cache:
            text = max(text, dearest if rates.long_write is None else rates.long_write)
        media = max(text, dearest if rates.audio_input is None else rates.audio_input)
        amount = asked.input_tokens * text + asked.media_tokens * media + asked.output_tokens * rates.dearest_output
        highest = max(highest, amount)
    calls = asked.server_calls * (tariff.call_nanousd or 0)
    return -(-highest // MTOK) + tariff.request_nanousd + calls


def _dearest_text(rates: Rates) -> int:
    """The highest rate of a token of text, or of a picture."""
    return max(rates.dearest_text_input, rates.image_input or 0)


def _possible_tiers(tariff: Tariff, asked: str) -> tuple[str, ...]:
    if asked in OPEN_TIERS:
        return ("", *tariff.open_tiers)
    return ("",) if asked in PLAIN_TIERS or asked in CHEAPER_TIERS else ("", asked)
