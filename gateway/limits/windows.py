"""Minutes, days and months: their names in table `spend`, and when they end."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo
from typing import Literal
from zoneinfo import ZoneInfo

import msgspec

NS_PER_S = 1_000_000_000
_MINUTE_NS = 60 * NS_PER_S

Window = Literal["minute", "day", "month"]
WINDOWS: tuple[Window, ...] = ("minute", "day", "month")


class Windows(msgspec.Struct, frozen=True):
    """The windows a moment lies in. Ends are nanoseconds since the epoch, exclusive."""

    minute: str  # "minute:2026-11-22T12:34", always UTC: an hour that a zone has twice is two hours
    day: str  # "day:2026-11-22"; in another zone than UTC "day:2026-11-22@Europe/Berlin"
    month: str  # "month:2026-11"
    minute_end_ns: int
    day_end_ns: int
    month_end_ns: int
    minute_resets_at: str  # for people, e.g. 2026-11-23T00:00:00Z
    day_resets_at: str
    month_resets_at: str
    zone: str = "UTC"

    def name(self, window: Window) -> str:
        """The name of the window of that kind."""
        return self.minute if window == "minute" else self.day if window == "day" else self.month

    def resets_at(self, window: Window) -> str:
        """When the window of that kind ends, for people."""
        if window == "minute":
            return self.minute_resets_at
        return self.day_resets_at if window == "day" else self.month_resets_at


def windows_at(now_ns: int, zone: str = "UTC") -> Windows:
    """The windows, in an IANA time zone, of a moment given in nanoseconds since the epoch.

    A day of a zone with summer time may have 23 or 25 hours. Where a day has no midnight, it begins when the clock
    has jumped over it; where it has two, with the first.
    """
    where: tzinfo = UTC if zone == "UTC" else ZoneInfo(zone)
    suffix = f"@{name}" if (name := zone_suffix(zone)) else ""
    now = datetime.fromtimestamp(now_ns // NS_PER_S, where)
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
    tomorrow = midnight + timedelta(days=1)  # on the calendar, not 24 hours
    # Day 1 plus 31 days is always in the following month.
    next_month = (midnight.replace(day=1) + timedelta(days=31)).replace(day=1)
    minute_ns = now_ns // _MINUTE_NS * _MINUTE_NS
    minute = datetime.fromtimestamp(minute_ns // NS_PER_S, UTC)
    return Windows(
        minute=f"minute:{minute:%Y-%m-%dT%H:%M}",
        day=f"day:{now:%Y-%m-%d}{suffix}",
        month=f"month:{now:%Y-%m}{suffix}",
        minute_end_ns=minute_ns + _MINUTE_NS,
        day_end_ns=int(tomorrow.timestamp()) * NS_PER_S,
        month_end_ns=int(next_month.timestamp()) * NS_PER_S,
        minute_resets_at=_for_people(minute + timedelta(minutes=1)),
        day_resets_at=_for_people(tomorrow),
        month_resets_at=_for_people(next_month),
        zone=zone,
    )


def zone_suffix(zone: str) -> str:
    """A time zone as names of windows end with it."""
    return "" if zone == "UTC" else zone


def names_in(zone: str, now_ns: int) -> tuple[str, ...]:
    """The names of the day and the month of a time, in a time zone as names of windows end with it ('' is UTC)."""
    windows = windows_at(now_ns, zone or "UTC")
    return windows.day, windows.month


def _for_people(moment: datetime) -> str:
    if moment.tzinfo is UTC:
        return f"{moment:%Y-%m-%dT%H:%M:%SZ}"
    # By way of UTC, since the clock of a zone may jump over a midnight.
    return moment.astimezone(UTC).astimezone(moment.tzinfo).isoformat()
