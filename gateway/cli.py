"""The `gateway` command. What serves for long first gets rid of the secrets in its visible environment.

Nothing heavy is imported before that, so that starting twice costs no more than a bare interpreter.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

_SERVING = frozenset(("serve", "quickstart"))


def main() -> None:
    """The console script."""
    if len(sys.argv) > 1 and sys.argv[1] in _SERVING:
        from gateway import environment

        try:
            environment.hide()
        except (environment.EnvironmentTooLargeError, OSError, ValueError) as error:
            sys.exit(f"gateway: {error}")
    sys.exit(run())


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code."""
    from gateway.commands import program

    return program.run(arguments)


if __name__ == "__main__":
    main()
