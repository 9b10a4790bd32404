"""approvals: cases that wait for people, decided from a terminal."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer

from gateway.commands.shared import (
    DATA_DIR,
    USAGE,
    CommandError,
    DataDir,
    Json,
    Limit,
    group,
    marked,
    safe,
    show,
    show_table,
)

if TYPE_CHECKING:
    from gateway.commands.client import Api

app = group("Cases that wait for people.")

CaseId = Annotated[
    str, typer.Argument(help="The case's id, or enough of its beginning or end to tell it.", metavar="CASE")
]
Reason = Annotated[str, typer.Option("--reason", help="Why, for the trail.")]
Digest = Annotated[
    str | None,
    typer.Option("--digest", help="Vote on the card with this digest, as `show` printed it; another one is refused."),
]

_SENTENCE_WIDTH = 72
_LEAST = 4  # characters of an id that are given
_FULL = 36


@app.command("list")
def list_cases(
    status: Annotated[
        str, typer.Option("--status", help="open, all, pending, approved, unknown, denied, ...")
    ] = "open",
    agent: Annotated[str | None, typer.Option("--agent", help="Only of this agent.")] = None,
    data_dir: DataDir = DATA_DIR,
    as_json: Json = False,
    limit: Limit = 50,
) -> None:
    """Cases that have not ended, newest first.

    \b
    Example:
      gateway approvals list
      gateway approvals list --status denied --agent payments-bot
    """
    from gateway.commands.client import Api

    api = Api(data_dir)
    found = api.get("/approvals", status=None if status == "all" else status, agent=agent, limit=limit)
    rows = found if as_json else [_row(one) for one in found]
    empty = "Nothing waits for a person." if status in ("open", "pending") else "There are no such cases."
    show_table(rows, ["id", "state", "agent", "risk", "expires", "what"], as_json, empty, api.total)


@app.command("show")
def show_case(case: CaseId, data_dir: DataDir = DATA_DIR, as_json: Json = False) -> None:
    """What an agent wants to do, why it was held, and who said what. That you looked is on record.

    \b
    Example:
      gateway approvals show 019a4c1e
    """
    from gateway.commands.client import Api

    api = Api(data_dir)
    found = _shown(api, case)
    show(found, as_json, _card(found))


@app.command()
def approve(
    case: CaseId,
    reason: Reason = "",
    yes: Annotated[bool, typer.Option("--yes", help="Don't ask; for scripts.")] = False,
    digest: Digest = None,
    data_dir: DataDir = DATA_DIR,
    as_json: Json = False,
) -> None:
    """Show a case and approve exactly what was shown. Asks first; --yes or --digest do without.

    \b
    Example:
      gateway approvals approve 019a4c1e --reason "Matches invoice 1042"
    """
    from gateway.commands.client import Api

    if digest is None and not yes and not sys.stdin.isatty():
        raise CommandError(
            "There is no terminal to ask at: look with `gateway approvals show` and give the digest it prints as"
            " --digest, or approve unseen with --yes.",
            USAGE,
        )
    api = Api(data_dir)
    found = _shown(api, case)
    if digest is None and not as_json:
        show(found, False, [*_card(found), ""])
    if digest is None and not yes:
        _check_decidable(found)
        if not typer.confirm("Approve this?", err=as_json):
            raise CommandError(f"The case {found['id']} is left as it was.")
    _vote(api, found, "approve", digest, reason, "", as_json)


@app.command()
def deny(
    case: CaseId,
    guidance: Annotated[str, typer.Option("--guidance", help="What the agent is told to do instead.")],
    reason: Reason = "",
    digest: Digest = None,
    data_dir: DataDir = DATA_DIR,
    as_json: Json = False,
) -> None:
    """Deny a case; the guidance reaches the agent.

    \b
    Example:
      gateway approvals deny 019a4c1e --guidance "Split it: at most 500 EUR a transfer"
    """
    from gateway.commands.client import Api

    if not guidance.strip():
        raise CommandError("A denial needs guidance; say what the agent should do instead.", USAGE)
    api = Api(data_dir)
    _vote(api, _shown(api, case), "deny", digest, reason, guidance, as_json)


@app.command()
def comment(
    case: CaseId,
    text: Annotated[str, typer.Argument(help="What to say.", metavar="TEXT")],
    data_dir: DataDir = DATA_DIR,
    as_json: Json = False,
) -> None:
    """Say something to the other people on a case; no agent sees it.

    \b
    Example:
      gateway approvals comment 019a4c1e "I have asked the supplier"
    """
    from gateway.commands.client import Api

    api = Api(data_dir)
    case_id = _id(api, case)
    said = api.post(_path(case_id, "comments"), {"text": text})
    show(said, as_json, f"Said on {case_id}.")


@app.command()
def cancel(
    case: CaseId,
    why: Annotated[str, typer.Option("--why", help="The agent is told.")] = "",
    data_dir: DataDir = DATA_DIR,
    as_json: Json = False,
) -> None:
    """End a case that is not carried out yet, without a decision on it.

    \b
    Example:
      gateway approvals cancel 019a4c1e --why "The supplier was paid by hand"
    """
    from gateway.commands.client import Api

    api = Api(data_dir)
    ended = api.post(_path(_id(api, case), "cancel"), {"why": why})
    show(ended, as_json, f"{ended['id']} is {ended['state']}.")


@app.command()
def reconcile(
    cases: Annotated[list[str], typer.Argument(metavar="CASE...", help="Their ids, or the beginnings of them.")],
    outcome: Annotated[str, typer.Option("--outcome", help="succeeded or failed.")],
    note: Annotated[str, typer.Option("--note", help="How you know.")],
    data_dir: DataDir = DATA_DIR,
    as_json: Json = False,
) -> None:
    """Say what became of cases whose outcome is unknown, after you looked where it would show.

    Whoever may not vote on a case may not reconcile it. A case ends once as many reviewers agree as had to approve it.
    After `failed`, an identical call is decided again and needs new votes.

    Several cases may share an outcome. One that can't be reconciled is reported, and the others go on.

    \b
    Example:
      gateway approvals reconcile 019a4c1e --outcome succeeded --note "The ledger has it as entry 77"
      gateway approvals reconcile 019a4c1e 019a4c2b --outcome failed --note "The bank was down from 9 to 10"
    """
    from gateway.commands.client import Api

    if outcome not in ("succeeded", "failed"):
        raise CommandError(f"The outcome {outcome!r} is neither succeeded nor failed; find out which it was.", USAGE)
    api = Api(data_dir)
    ended: list[dict[str, Any]] = []
    faults: list[CommandError] = []
    for case in cases:
        try:
            ended.append(api.post(_path(_id(api, case), "reconcile"), {"outcome": outcome, "note": note}))
        except CommandError as fault:
            faults.append(fault)
    if ended:
        text = "\n".join(_reconciled(one, outcome) for one in ended)
        show(ended[0] if len(cases) == 1 else ended, as_json, text)
    for earlier in faults[:-1]:
        print(safe(earlier.message), file=sys.stderr)
    if faults:
        raise faults[-1]


# ------------------------------------------------------------ the case that is meant


def _shown(api: Api, case: str) -> dict[str, Any]:
    found: dict[str, Any] = api.get(_path(_id(api, case)))
    return found


def _id(api: Api, given: str) -> str:
    """The id that begins or ends with `given`: looked for among open cases, then among the newest of all."""
    if len(given) >= _FULL:
        return given
    if len(given) < _LEAST:
        raise CommandError(f"{given!r} is too short to tell a case; give at least {_LEAST} characters.", USAGE)
    for status in ("open", None):
        ids = [one["id"] for one in api.get("/approvals", status=status, limit=1000)]
        found = [one for one in ids if one.startswith(given) or one.endswith(given)]
        if len(found) > 1:
            several = ", ".join(found[:5])
            raise CommandError(f"{len(found)} cases have {given!r} in their id ({several}); give more of it.", USAGE)
        if found:
            return str(found[0])
    raise CommandError(f"No case begins or ends with {given!r}; `gateway approvals list --status all` shows them.")


def _path(case_id: str, then: str = "") -> str:
    return f"/approvals/{quote(case_id, safe='')}{f'/{then}' if then else ''}"


def _reconciled(case: dict[str, Any], outcome: str) -> str:
    if case["state"] != "unknown":
        return f"{case['id']} is {case['state']}."
    agree = sum(one["counts"] and one["outcome"] == outcome and not one["no_place"] for one in case["findings"])
    return f"{case['id']} is still unknown: {agree} of {case['findings_needed']} reviewers found that it {outcome}."


# ------------------------------------------------------------ voting


def _check_decidable(found: dict[str, Any]) -> None:
    may = found["may_decide"]
    if not may["ok"]:
        raise CommandError(str(may["why"]))


def _vote(
    api: Api, found: dict[str, Any], decision: str, digest: str | None, reason: str, guidance: str, as_json: bool
) -> None:
    vote = {"decision": decision, "presented_digest": digest or found["presented_digest"]}
    after = api.post(_path(found["id"], "reviews"), {**vote, "reason": reason, "guidance": guidance})
    said = "approved" if decision == "approve" else "denied"
    more = f" {_needed(after)}." if after["state"] == "pending" else ""
    show(after, as_json, f"You have {said} {after['id']}, which is {after['state']} now.{more}")


# ------------------------------------------------------------ as people read it


def _row(case: dict[str, Any]) -> dict[str, Any]:
    what = case["sentence"] or case["target"]
    if len(what) > _SENTENCE_WIDTH:
        what = f"{what[: _SENTENCE_WIDTH - 1]}…"
    found = case["unusual_characters"]
    sign = "[unusual characters] " if found["arguments"] else "" if found["complete"] else "[not all checked] "
    return {**case, "expires": f"{case['expires'][:19]}Z", "what": sign + marked(" ".join(what.split()))}


def _needed(case: dict[str, Any]) -> str:
    """What it still takes: of each quorum, how many have approved."""
    parts = []
    for one in case["quorum"]:
        by = f" of {one['group']}" if one["group"] else ""
        parts.append(f"{one['approved'] or 0} of {one['approve']} approvals{by}")
    return ", ".join(parts)


def _card(case: dict[str, Any]) -> Iterator[str]:
    card = case["card"]
    agent, target = card["agent"], card["target"]
    pending = case["state"] == "pending"
    yield f"case      {case['id']}: {case['state']}" + (f", {_needed(case)}" if pending else "")
    yield _one_line(f"what      {case['sentence'] or case['target'] + ' (its manifest has no sentence)'}")
    owners = ", ".join(f"{role} {person}" for role, person in sorted(agent["owners"].items())) or "nobody"
    team = f" of {agent['team']}" if agent.get("team") else ""
    user = f", for {case['user']}" if case["user"] else ""
    yield _one_line(f"agent     {case['agent']}{team}{user}; owned by {owners}")
    classes = ", ".join(target["data_classes"]) or "no data class"
    yield _one_line(
        f"tool      {case['target']}: {case['risk']} risk, {case['effect']},"
        f" {'reversible' if target['reversible'] else 'not reversible'}, {classes}; owned by {target['owner']}"
    )
    yield _one_line(f"why       {' '.join(case['reasons']) or 'no reason given'} (rule {', '.join(case['rules'])})")
    for note in case["notes"]:
        yield _one_line(f"note      {note} (not sent to the agent)")
    yield "arguments"
    for line in json.dumps(case["arguments"], indent=2, ensure_ascii=False).splitlines():
        yield f"  {marked(line)}"
    yield from _unusual(case)
    if case["claimed_purpose"]:
        yield _one_line(f"claimed   {case['claimed_purpose']} (the agent's words, unproven)")
    for one in case["like"]:
        yield _one_line(f"like it   {one['id']} waits too: {one['sentence'] or 'the same tool, other arguments'}")
        for two in one["differs"]:
            yield f"          {_difference(two)}"
    if case["like_count"] > len(case["like"]):
        yield f"          {len(case['like'])} of {case['like_count']} similar cases shown."
    yield f"opened    {case['opened'][:19]}Z, {'ends undecided' if pending else 'expires'} {case['expires'][:19]}Z"
    for one in case["votes"]:
        said = "".join(f", {name}: {one[name]}" for name in ("reason", "guidance") if one[name])
        counts = "" if one["counts"] else " (on an earlier card; does not count)"
        yield _one_line(f"vote      {one['time'][:19]}Z {one['person']}: {one['choice']}{counts}{said}")
        if one["no_place"]:
            yield _one_line(f"          {one['no_place']}")
    for one in case["findings"]:
        counts = "" if one["counts"] else " (changed since)"
        yield _one_line(f"finding   {one['time'][:19]}Z {one['person']}: {one['outcome']}{counts}, {one['note']}")
        if one["no_place"]:
            yield _one_line(f"          {one['no_place']}")
    for one in case["comments"]:
        yield _one_line(f"comment   {one['time'][:19]}Z {one['person']}: {one['text']}")
    for one in case["attempts"]:
        note = f" ({one['note']})" if one["note"] else ""
        yield _one_line(f"attempt   {one['started'][:19]}Z: {one['outcome'] or 'under way'}{note}")
    if case["ended"]:
        yield _one_line(f"ended     {case['ended'][:19]}Z {case['why']}".rstrip())
    yield f"digest    {case['presented_digest']}"
    if pending and not case["may_decide"]["ok"]:
        yield _one_line(f"you       {case['may_decide']['why']}")
    if case["state"] == "unknown" and not case["may_reconcile"]["ok"]:
        yield _one_line(f"you       {case['may_reconcile']['why']}")


def _unusual(case: dict[str, Any]) -> Iterator[str]:
    """What in the arguments can't be seen or could be taken for others, by number and name."""
    import msgspec

    from gateway.actions import ArgumentKind
    from gateway.catalog.sentences import is_exact
    from gateway.catalog.unusual import notes

    kinds = msgspec.convert(case["card"]["target"].get("arguments", {}), dict[str, ArgumentKind])
    for name, value in case["arguments"].items():
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        found = notes(name) + notes(text, exact=is_exact(kinds.get(name), value))
        if found:
            yield f"unusual   characters in {_one_line(name)}: {'; '.join(found)}"


def _difference(one: dict[str, Any]) -> str:
    """An argument in which a similar case differs; by code points where the two look the same."""
    there, here = (_one_line(one[side]) if one[side] is not None else "not given" for side in ("there", "here"))
    line = f"{_one_line(one['name'])}: {there} there, {here} here"
    if "here_points" in one:
        line += f"; they look alike and differ: {one['there_points']} there, {one['here_points']} here"
    return line


def _one_line(text: str) -> str:
    return marked(" ".join(text.splitlines()))
