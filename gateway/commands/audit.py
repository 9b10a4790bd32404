"""audit: the trail. `verify` reads the files alone, so that it works while the gateway refuses to start."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer

from gateway.commands.shared import (
    DATA_DIR,
    PROBLEM,
    USAGE,
    CommandError,
    DataDir,
    Json,
    Limit,
    group,
    seconds,
    show,
    show_table,
)

if TYPE_CHECKING:
    from gateway.audit.source import Source

app = group("The trail: what happened, who decided, and the proof.")


@app.command()
def query(
    since: Annotated[str | None, typer.Option("--since", help="RFC 3339, or a duration back: 15m, 24h, 7d.")] = None,
    until: Annotated[str | None, typer.Option("--until", help="RFC 3339 or a duration back; exclusive.")] = None,
    agent: Annotated[str | None, typer.Option("--agent")] = None,
    user: Annotated[str | None, typer.Option("--user")] = None,
    session: Annotated[str | None, typer.Option("--session")] = None,
    kind: Annotated[str | None, typer.Option("--kind", help="model.invoke, tool.call, ...")] = None,
    tool: Annotated[str | None, typer.Option("--tool", help="A name, or server__tool.")] = None,
    model: Annotated[str | None, typer.Option("--model")] = None,
    type_: Annotated[str | None, typer.Option("--type", help="E.g. action.result; may end in *.")] = None,
    effect: Annotated[str | None, typer.Option("--effect", help="allow, deny or escalate.")] = None,
    status: Annotated[str | None, typer.Option("--status", help="succeeded, failed, denied, ...")] = None,
    code: Annotated[str | None, typer.Option("--code")] = None,
    action: Annotated[str | None, typer.Option("--action", help="An action's id.")] = None,
    rule: Annotated[str | None, typer.Option("--rule", help="A rule that decided.")] = None,
    case: Annotated[str | None, typer.Option("--case", help="A case that waits or waited for people.")] = None,
    reads: Annotated[bool, typer.Option("--reads", help="Also audit.read: that somebody looked.")] = False,
    data_dir: DataDir = DATA_DIR,
    as_json: Json = False,
    limit: Limit = 50,
) -> None:
    """Records, newest first; everything given must hold. That you looked is recorded.

    Without --reads or --type, records of such looks (audit.read) are left out.

    \b
    Example:
      gateway audit query --agent invoice-bot --effect deny --since 24h
    """
    from gateway.commands.client import Api

    api = Api(data_dir)
    found = api.get(
        "/audit/records",
        since=_when(since),
        until=_when(until),
        agent=agent,
        user=user,
        session=session,
        kind=kind,
        tool=tool,
        model=model,
        type=type_,
        effect=effect,
        status=status,
        code=code,
        action=action,
        rule=rule,
        case=case,
        reads="true" if reads or type_ is not None else "false",
        limit=limit,
    )
    if as_json:
        show(found, as_json, "")
        return
    columns = ["time", "type", "agent", "what", "effect", "rules", "status", "code", "usd", "id"]
    show_table([_row(record) for record in found], columns, as_json, "No record matches.", api.total)


@app.command("show")
def show_record(
    record: Annotated[str, typer.Argument(help="The id of a record, an action or a case.", metavar="ID")],
    disclose: Annotated[bool, typer.Option("--disclose", help="Show arguments, results and policy input.")] = False,
    data_dir: DataDir = DATA_DIR,
    as_json: Json = False,
) -> None:
    """A record with what belongs to it. That you looked, and whether at contents, is recorded.

    \b
    Example:
      gateway audit show 019a7c1e-... --disclose
    """
    from gateway.commands.client import Api

    found = Api(data_dir).get(f"/audit/records/{quote(record, safe='')}", disclose="true" if disclose else "false")
    lines = [json.dumps(found["record"], indent=2, ensure_ascii=False)]
    lines.append("signed" if found["signed"] else "not yet signed")
    lines += [f"related: {one['ts'][:19]}Z {one['type']}{_who(one)} {one['id']}" for one in found["related"]]
    for payload in found["payloads"]:
        lines += [f"{payload['name']} ({payload['state']}):", str(payload["text"] or payload["base64"] or "-")]
    show(found, as_json, lines)


@app.command()
def verify(
    key: Annotated[
        str | None, typer.Option("--key", help="The log's public key as you hold it (vkey), or a file.")
    ] = None,
    checkpoint: Annotated[
        Path | None, typer.Option("--checkpoint", help="A checkpoint you kept from before, in a file.")
    ] = None,
    known: Annotated[
        str | None, typer.Option("--known", help="The size and root you noted from before.", metavar="SIZE:ROOT")
    ] = None,
    payloads: Annotated[bool, typer.Option("--payloads/--no-payloads", help="Check payloads too.")] = True,
    data_dir: DataDir = DATA_DIR,
    as_json: Json = False,
) -> None:
    """Check the whole trail from the files alone, whether or not a gateway runs.

    Exit 1 if it does not hold; 2 if it could not be read, or if a key is another log's: then nothing is said of it.
    With GATEWAY_DATABASE_URL it is read from PostgreSQL.

    \b
    Example:
      gateway audit verify --data-dir var
    """
    source = _source(data_dir)
    if known is not None and checkpoint is not None:
        raise CommandError("Give --checkpoint or --known, not both.", USAGE)
    try:
        note = None if checkpoint is None else checkpoint.read_bytes()
    except OSError as error:
        raise CommandError(f"The checkpoint {checkpoint} cannot be read ({error.strerror}).", USAGE) from error
    vkey = _key(key)
    import msgspec

    from gateway.audit.check import verify as verify_trail
    from gateway.audit.source import UnreadableError
    from gateway.limits.windows import names_in
    from gateway.verify.checkpoints import Checkpoint, parse
    from gateway.verify.notes import NoteError

    head: Checkpoint | None = None
    if known is not None:
        size, _, root = known.strip().partition(":")
        try:
            head = parse(f"known\n{size}\n{root}\n")
        except NoteError as error:
            raise CommandError(
                f"--known takes SIZE:ROOT as `gateway audit verify` prints it: {error}.", USAGE
            ) from error
    try:
        report = verify_trail(
            source,
            vkey=vkey,
            known=note if head is None else head,
            payloads=payloads,
            names_in=names_in,
        )
    except UnreadableError as error:
        raise CommandError(str(error), USAGE) from error
    show({"id": report.verdict, **msgspec.to_builtins(report)}, as_json, report.lines())
    if not report.ok:
        raise typer.Exit(PROBLEM)


def _key(given: str | None) -> str | None:
    """The public key: as text, or from the file that is named."""
    if given is None or "+" in given:
        return given
    try:
        return Path(given).read_text("ascii").strip()
    except (OSError, ValueError) as error:
        raise CommandError(
            f"--key takes the log's public key (name+hash+base64) or a file with it, and {given!r} is neither.", USAGE
        ) from error


def _source(data_dir: Path) -> Source:
    """The trail of the data directory, or of the database that this process's environment names."""
    from gateway import process
    from gateway.audit.source import FileSource, PostgresSource, is_replicas

    found, problems = process.load()
    if found is None:
        raise CommandError("; ".join(str(one) for one in problems), USAGE)
    if found.database_url is not None:
        keys = found.keys_dir or data_dir / "keys"
        return PostgresSource(found.database_url.get_secret_value(), data_dir, keys)
    if not data_dir.is_dir():
        raise CommandError(f"There is no data directory {data_dir}; name it with --data-dir.", USAGE)
    if is_replicas(data_dir):
        raise CommandError(
            f"{data_dir} is the folder of a replica, whose trail is in PostgreSQL: set GATEWAY_DATABASE_URL and"
            " GATEWAY_REDIS_URL (and GATEWAY_KEYS_DIR, for payloads) as the replica has them.",
            USAGE,
        )
    return FileSource(data_dir)


@app.command("checkpoint")
def show_checkpoint(data_dir: DataDir = DATA_DIR, as_json: Json = False) -> None:
    """The last signed checkpoint. Keep it elsewhere: with it a rolled-back log is told.

    \b
    Example:
      gateway audit checkpoint > checkpoint.txt
    """
    from gateway.commands.client import Api

    last = Api(data_dir).get("/audit/checkpoint")
    show(last, as_json, last["note"].rstrip("\n"))


def _row(record: dict[str, Any]) -> dict[str, Any]:
    action, actor = record.get("action") or {}, record.get("actor") or {}
    decision, result, cost = record.get("decision") or {}, record.get("result") or {}, record.get("cost") or {}
    tool = "__".join(part for part in (action.get("server"), action.get("tool")) if part)
    return {
        "time": f"{record['ts'][:19]}Z",
        "type": record["type"],
        "agent": actor.get("agent") or _subject(record) or actor.get("user"),
        "what": tool or (record.get("model") or {}).get("requested"),
        "effect": decision.get("effect"),
        "rules": decision.get("rules"),
        "status": result.get("status"),
        "code": result.get("code"),
        "usd": cost.get("usd"),
        "estimated": cost.get("estimated"),
        "id": record["id"],
    }


def _subject(record: dict[str, Any]) -> str | None:
    labels = record.get("labels") or {}
    about = labels.get("subject.agent") or (labels.get("agent") if record.get("case") else None)
    return None if about is None else str(about)


def _who(record: dict[str, Any]) -> str:
    """By which person a record of a case is."""
    actor = record.get("actor") or {}
    return f" by {actor.get('user')}" if record.get("case") and not actor.get("agent") and actor.get("user") else ""


def _when(text: str | None) -> str | None:
    if text is None or "T" in text or "-" in text:
        return text
    return (datetime.now(UTC) - timedelta(seconds=seconds(text))).isoformat()
