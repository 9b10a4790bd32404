"""`python -m gateway.quickstart.demo`: what `make demo` runs."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from gateway.quickstart.demo import stage as stages
from gateway.quickstart.demo.stage import Stage
from gateway.quickstart.demo.story import Story, TooLittleMoney
from gateway.quickstart.demo.told import NotAsTold, say, table

ROOT = Path(__file__).parents[3]


def main(argv: list[str] | None = None) -> int:
    """Play the story; 0 if everything was as told, else 1 and one sentence on standard error."""
    parser = argparse.ArgumentParser(prog="python -m gateway.quickstart.demo", description=__doc__)
    parser.add_argument("--by-hand", action="store_true", help="a human decides the cases, in the console")
    parser.add_argument("--own", action="store_true", help="a gateway of its own, whatever runs")
    parser.add_argument("--gateway", type=Path, default=ROOT / ".venv" / "bin" / "gateway", help="the command")
    parser.add_argument("--config", type=Path, default=ROOT / "gateway.yaml", help="of a gateway of its own")
    given = parser.parse_args(argv)
    data_dir = Path(os.environ.get("GATEWAY_DATA_DIR") or "var")
    try:
        running = None if given.own else stages.running(given.gateway, data_dir)
        if running is None:
            say("No gateway runs here (`make run` starts one), so this one is the story's own.")
        else:
            say(f"This plays against the gateway that runs on {running.url}.")
            try:
                return _play(running, by_hand=given.by_hand)
            except TooLittleMoney as broke:
                say(f"{broke} The story plays on a gateway of its own.")
        with stages.own(given.gateway, given.config) as own:
            return _play(own, by_hand=given.by_hand)
    except NotAsTold as wrong:
        print(f"demo: not as told. {wrong}", file=sys.stderr)  # noqa: T201 - the sentence that exit code 1 promises
    except KeyboardInterrupt:
        return 130
    return 1


def _play(stage: Stage, *, by_hand: bool) -> int:
    story = Story(stage, by_hand=by_hand)
    with _table_of(story):
        asyncio.run(story.play())
    say("Everything is as told.")
    return 0


@contextlib.contextmanager
def _table_of(story: Story) -> Iterator[None]:
    """The table is told however far the story came."""
    try:
        yield
    finally:
        if story.steps:
            say("")
            for line in table(story.steps):
                say(line)
            say("")


if __name__ == "__main__":
    sys.exit(main())
