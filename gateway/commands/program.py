"""The `gateway` command: every command listed in order, and how each ends.

Exit codes: 0 ok, 1 a problem was found or the gateway refused, 2 wrong usage. Errors are one sentence on standard
error; a traceback only with GATEWAY_LOG_LEVEL=debug, for whoever fixes the gateway itself.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import typer
from typer.exceptions import Abort, Exit, TyperException

from gateway.commands import agents, approvals, audit, checking, drill, people, policy, running, sessions, system, tools
from gateway.commands.shared import OK, PROBLEM, USAGE, CommandError, complain
from gateway.errors import Refusal

app = typer.Typer(
    name="gateway",
    help="One governed, provable path between AI agents and both models and tools.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
for command in (
    running.serve,
    running.quickstart,
    checking.check,
    running.migrate,
    system.login,
    system.status,
    system.reload,
    running.healthcheck,
    drill.drill,
):
    app.command()(command)
app.add_typer(agents.app, name="agents")
app.add_typer(people.app, name="people")
app.add_typer(sessions.app, name="sessions")
app.add_typer(approvals.app, name="approvals")
app.add_typer(policy.app, name="policy")
app.add_typer(tools.app, name="tools")
app.add_typer(audit.app, name="audit")


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code."""
    try:
        code = app(args=None if arguments is None else list(arguments), prog_name="gateway", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else OK
    except Exit as ended:
        return ended.exit_code
    except (Abort, KeyboardInterrupt):
        return 130  # as a shell says it of an interrupted command
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader has seen enough
        return OK
    except CommandError as error:
        complain(error.message)
        return error.exit_code
    except Refusal as refusal:
        complain(refusal.message)
        return PROBLEM
    except TyperException as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            print(error.format_message(), file=sys.stderr)
        else:
            complain(_usage(error))
        return USAGE
    except OSError as error:
        complain(f"{error.filename or 'The system'}: {error.strerror or error}; check the path and its permissions.")
        return PROBLEM
    except Exception as error:
        if os.environ.get("GATEWAY_LOG_LEVEL", "").lower() == "debug":
            raise
        # Not the error's text: it may quote what it was about, a key or a password.
        complain(
            f"A fault of the gateway ({type(error).__name__}); GATEWAY_LOG_LEVEL=debug shows where, please report it."
        )
        return PROBLEM


def _usage(error: TyperException) -> str:
    context = getattr(error, "ctx", None)
    path = "gateway" if context is None else context.command_path
    said = str(error.format_message()).rstrip(".")
    return f"{said}{'' if said.endswith('?') else '.'} `{path} --help` shows how it is written."
