"""Real SDKs read what the gateway makes of an answer: what each would execute is exactly what was judged.

A failure names the answer and the command that shows it: what came, what is sent, and what each SDK reads.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from tests.e2e.clients import need
from tests.sdk_streams import answers, issue, streams
from tests.sdk_streams.check import faults
from tests.sdk_streams.drill import SEED, Figures, drill, generated, way_to_see
from tests.sdk_streams.filtering import Filtered, filtered
from tests.sdk_streams.readers import NPM, SDK, Item, Readers, Reading
from tests.sdk_streams.upstream import Upstream

# The share of well-formed answers that the SDKs do not read alike: those that were cut off, at which openai-python
# raises.
UNLIKE = 0.1
FIXED = {case.name: case for case in (*issue.FIXED, *answers.FIXED)}


@pytest.fixture(scope="module")
def readers() -> Iterator[Readers]:
    need(SDK, NPM)
    with Readers() as readers:
        yield readers


@pytest.fixture(scope="module")
def fixed(readers: Readers) -> dict[str, tuple[Filtered, dict[str, Reading]]]:
    """What is sent of each fixed case, and what each SDK reads of it."""
    sent = {name: asyncio.run(filtered(case, 0.0)) for name, case in FIXED.items()}
    readings = readers.read([Item(case.kind, sent[name].pieces, case.tools) for name, case in FIXED.items()])
    return {name: (sent[name], reading) for name, reading in zip(FIXED, readings, strict=True)}


@pytest.mark.parametrize("name", FIXED)
def test_what_the_issue_names(
    name: str, fixed: dict[str, tuple[Filtered, dict[str, Reading]]], readers: Readers
) -> None:
    case, (sent, readings) = FIXED[name], fixed[name]
    found = faults(case, sent, readings, lambda: readers.read([Item(case.kind, case.pieces, case.tools)])[0])
    assert not found, f"{[f'{fault.who}: {fault.what}' for fault in found]}; {way_to_see(case)}"


def test_generated_streams(readers: Readers) -> None:
    _assert_sound(drill(readers, generated(SEED, 40, streams.stream)))


def test_generated_answers(readers: Readers) -> None:
    _assert_sound(drill(readers, generated(SEED, 30, answers.answer)))


@pytest.mark.drill
@pytest.mark.timeout(600)
def test_a_thousand_streams(readers: Readers) -> None:
    figures = drill(readers, generated(SEED, 1_000, streams.stream))
    _assert_sound(figures)
    assert figures.alike > 250
    assert all(figures.read[name] for name in figures.read)


@pytest.mark.drill
@pytest.mark.timeout(600)
def test_a_thousand_answers(readers: Readers) -> None:
    _assert_sound(drill(readers, generated(SEED, 1_000, answers.answer)))


def test_what_passes_as_it_came_is_found(readers: Readers) -> None:
    """The check is no check if a filter that lets everything pass has no fault."""

    def passed(case: Upstream) -> Filtered:
        return Filtered(case.pieces, asyncio.run(filtered(case, 0.0)).verdicts, None)

    names = ("two names at one index", "no index", "two calls at index 0")
    cases = [FIXED[name] for name in names]
    readings = readers.read([Item(case.kind, case.pieces, case.tools) for case in cases])
    for case, reading in zip(cases, readings, strict=True):
        found = faults(case, passed(case), reading, dict)
        who = {fault.who for fault in found}
        assert "gateway" in who, case.name
        assert who - {"gateway"}, case.name


def _assert_sound(figures: Figures) -> None:
    assert figures.answers
    lost = [upstream.name for upstream in figures.well_formed_lost]
    assert not figures.faults, "\n".join(figures.lines())
    assert not lost, "\n".join(figures.lines())
    assert figures.unlike_well_formed <= figures.answers * UNLIKE
