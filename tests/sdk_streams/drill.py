"""The differential drill: answers by the thousand, read by every SDK before and after the gateway.

python -m tests.sdk_streams.drill --count 100000        figures, and each fault with the way to see it again
python -m tests.sdk_streams.drill --show SEED/NUMBER    one answer: what came, what is sent, what each SDK reads
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple

from tests.sdk_streams import answers, issue, streams
from tests.sdk_streams.check import CANON, Fault, alike, faults, readable, released_keys
from tests.sdk_streams.filtering import Filtered, filtered
from tests.sdk_streams.readers import Item, Readers, Reading
from tests.sdk_streams.released import FormError
from tests.sdk_streams.upstream import Upstream

SEED = "s1"
_BATCH = 50
_DENIED = (0.0, 0.4)  # every other answer has a share of its calls denied
_Begun = list[Future[list[dict[str, Reading]]]]


@dataclass
class Figures:
    """What a drill found."""

    answers: int = 0
    refused: int = 0
    released: int = 0
    left_out: int = 0
    read: Counter[str] = field(default_factory=Counter)  # calls by reader
    failed: Counter[str] = field(default_factory=Counter)  # answers on which a reader raised, by reader
    faults: list[tuple[Upstream, Fault]] = field(default_factory=list)
    compared: int = 0  # answers whose own bytes the SDKs read too
    alike: int = 0  # answers that the SDKs read alike before the gateway, all calls allowed and readable
    kept: int = 0  # those of them whose calls are released as they were read
    lost: list[Upstream] = field(default_factory=list)
    well_formed_lost: list[Upstream] = field(default_factory=list)
    unlike_well_formed: int = 0
    seconds: float = 0.0

    def lines(self) -> Iterator[str]:
        """The figures, and then each fault."""
        yield (
            f"{self.answers} answers in {self.seconds:.0f} s: {self.released} calls released, {self.left_out} left out,"
            f" {self.refused} answers refused, {len(self.faults)} faults"
        )
        wrong = Counter(fault.who for _, fault in self.faults)
        for name in sorted(self.read | self.failed | wrong):
            yield f"  {name:24} {self.read[name]:8} calls read, {self.failed[name]:6} answers it fails on, {wrong[name]:6} mismatches"
        yield (
            f"  of {self.compared} answers the SDKs read {self.alike} alike before the gateway;"
            f" the gateway kept {self.kept} of them"
        )
        for upstream in self.lost[:20]:
            yield f"lost: {upstream.name} {list(upstream.oddities)}; {way_to_see(upstream)}"
        for upstream, fault in self.faults[:40]:
            yield _line(upstream, fault)


class _Batch(NamedTuple):
    upstreams: Sequence[Upstream]
    filtered: Sequence[Filtered]
    after: _Begun
    before: _Begun
    kept_every: int


def _line(upstream: Upstream, fault: Fault) -> str:
    return f"{fault.who}: {fault.what} [{', '.join(upstream.oddities)}]; {way_to_see(upstream)}"


def way_to_see(upstream: Upstream) -> str:
    """The command that shows everything about an answer."""
    kind = "" if upstream.kind == "stream" else " --plain"
    return f"python -m tests.sdk_streams.drill{kind} --show '{upstream.name}'"


def generated(seed: str, count: int, make: Callable[[str, int], Upstream], first: int = 0) -> Iterator[Upstream]:
    return (make(seed, number) for number in range(first, first + count))


def drill(
    readers: Readers, upstreams: Iterable[Upstream], say: Callable[[str], None] | None = None, *, kept_every: int = 1
) -> Figures:
    """Read and check them all, and of one in `kept_every` whether what the SDKs read alike is kept; `say` is given each fault, and a line of progress now and then."""
    figures, began = Figures(), time.monotonic()
    rest = iter(upstreams)
    previous: _Batch | None = None
    while True:
        batch = _begin(readers, list(islice(rest, _BATCH)), kept_every)
        if previous is not None:
            _check(readers, previous, figures, say)
            if say is not None and figures.answers % (_BATCH * 40) == 0:
                say(f"{figures.answers} answers, {len(figures.faults)} faults, {time.monotonic() - began:.0f} s")
        previous = batch
        if not batch.upstreams:
            break
    figures.seconds = time.monotonic() - began
    return figures


def _begin(readers: Readers, upstreams: Sequence[Upstream], kept_every: int) -> _Batch:
    async def run() -> list[Filtered]:
        return [await filtered(one, denied_share(one)) for one in upstreams]

    sent = asyncio.run(run())
    after = [Item(one.kind, after.pieces, one.tools) for one, after in zip(upstreams, sent, strict=True)]
    # Also what the SDKs make of the upstream's own bytes, of every so many: that is what the gateway must not lose.
    compared = upstreams[::kept_every]
    before = [Item(one.kind, [one.data], one.tools, CANON) for one in compared]
    return _Batch(upstreams, sent, readers.begin(after), readers.begin(before) if before else [], kept_every)


def denied_share(upstream: Upstream) -> float:
    """Fixed cases are allowed; of the others every second has a share denied."""
    number = upstream.name.rpartition("/")[2]
    return _DENIED[int(number) % 2] if number.isdecimal() else 0.0


def _check(readers: Readers, batch: _Batch, figures: Figures, say: Callable[[str], None] | None) -> None:
    after, before = readers.finish(batch.after), iter(readers.finish(batch.before) if batch.before else ())
    for number, (upstream, sent, readings) in enumerate(zip(batch.upstreams, batch.filtered, after, strict=True)):
        figures.answers += 1
        figures.refused += sent.refused is not None
        figures.released += len(sent.released)
        figures.left_out += len(sent.left_out)
        for name, reading in readings.items():
            figures.read[name] += len(reading.calls)
            figures.failed[name] += reading.error is not None
        again = _Once(readers, upstream)
        found = [(upstream, fault) for fault in faults(upstream, sent, readings, again)]
        figures.faults += found
        if say is not None:
            for one in found:
                say(_line(*one))
        if number % batch.kept_every == 0:
            figures.compared += 1
            _check_kept(upstream, sent, next(before), figures)


def _check_kept(upstream: Upstream, sent: Filtered, earlier: Mapping[str, Reading], figures: Figures) -> None:
    """Whether what the SDKs read alike of the upstream's bytes is what they still get."""
    same = alike(earlier)
    if same is None:
        figures.unlike_well_formed += upstream.well_formed
        return
    if not sent.all_allowed or not readable(earlier[CANON[0]].calls):
        return
    figures.alike += 1
    try:
        kept = sent.refused is None and released_keys(upstream, sent) == same
    except FormError:
        kept = False
    figures.kept += kept
    if not kept:
        figures.lost.append(upstream)
        if upstream.well_formed:
            figures.well_formed_lost.append(upstream)


class _Once:
    """What every reader makes of the upstream's own bytes, read when it is asked for."""

    def __init__(self, readers: Readers, upstream: Upstream) -> None:
        self._readers = readers
        self._item = Item(upstream.kind, upstream.pieces, upstream.tools)
        self._read: Mapping[str, Reading] | None = None

    def __call__(self) -> Mapping[str, Reading]:
        if self._read is None:
            self._read = self._readers.read([self._item])[0]
        return self._read


def _show(name: str, make: Callable[[str, int], Upstream]) -> None:
    """Print everything about one answer."""
    seed, _, number = name.rpartition("/")
    upstream = next((one for one in (*issue.FIXED, *answers.FIXED) if one.name == name), None) or make(
        seed, int(number)
    )
    sent = asyncio.run(filtered(upstream, denied_share(upstream)))
    print(f"== {upstream.name}: {', '.join(upstream.oddities) or 'nothing odd'}; {upstream.choices} choices")
    print("== the upstream sends")
    print(upstream.data.decode("utf-8", "backslashreplace"))
    print("== the gateway sends")
    print(sent.data.decode("utf-8", "backslashreplace"))
    print(f"== it must release, if all are allowed: {upstream.intended}")
    for verdict in sent.verdicts:
        print(f"== {'released' if verdict.release else 'left out'}: {verdict.proposal[:3]}")
    with Readers() as readers:
        items = [Item(upstream.kind, pieces, upstream.tools) for pieces in (upstream.pieces, sent.pieces)]
        before, after = readers.read(items)
    for title, readings in (("before", before), ("after", after)):
        print(f"== {title} the gateway")
        for reader, reading in readings.items():
            calls = [
                (call.kind, call.choice, call.call_id, call.name, call.text or call.value) for call in reading.calls
            ]
            ran = "" if reading.executed is None else f" ran {[call.name for call in reading.executed]}"
            print(f"  {reader:24} {calls}{ran} {reading.finish} {reading.error or ''} {reading.text!r}")
    for fault in faults(upstream, sent, after, lambda: before):
        print(f"== FAULT {fault.who}: {fault.what}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", default=SEED)
    parser.add_argument("--first", type=int, default=0, metavar="NUMBER")
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--kept-every", type=int, default=1, metavar="N", help="compare one in N with what came")
    parser.add_argument("--plain", action="store_true", help="only answers that come whole")
    parser.add_argument("--streams", action="store_true", help="only streams")
    parser.add_argument("--show", metavar="SEED/NUMBER")
    options = parser.parse_args()
    if options.show:
        _show(options.show, answers.answer if options.plain else streams.stream)
        return 0
    wrong = 0
    with Readers() as readers:
        for title, make, skipped in (
            ("Streams", streams.stream, options.plain),
            ("Plain answers", answers.answer, options.streams),
        ):
            if skipped:
                continue
            upstreams = generated(options.seed, options.count, make, options.first)
            figures = drill(
                readers, upstreams, lambda line: print(line, file=sys.stderr), kept_every=options.kept_every
            )
            print("\n".join([f"{title}:", *figures.lines()]))
            wrong += len(figures.faults) + len(figures.well_formed_lost)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
