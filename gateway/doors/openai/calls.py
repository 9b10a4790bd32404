"""Tool calls of one choice: put together from their parts, proposed, and written again from what was judged.

SDKs join the parts of a call in different ways (openai-python appends names, openai-node takes the last one, the
Vercel AI SDK the first), so the parts themselves are never passed on. A call is readable where those SDKs agree, and
in the cases that `Calls.add` names. Every other call is unreadable: it is proposed without arguments and so denied.

Source: https://platform.openai.com/docs/api-reference/chat-streaming/streaming; the accumulators of openai-python
(`_deltas.py`), openai-node (`ChatCompletionStream.ts`) and @ai-sdk/openai-compatible.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

from gateway.proposals import JSON_SPACE, Proposal, read_arguments
from gateway.protocols.key_folding import fold_name
from gateway.protocols.tool_names import TOOL_NAME_RULE, is_tool_name
from gateway.redaction import Redactor

MAX_CALLS: Final = 256
"""In one answer; an answer that proposes more is none that anybody could act on."""

# Keys of a call that the gateway writes itself, and those whose other spellings some reader takes for one of them.
_WRITTEN = frozenset({"index", "id", "type", "function", "custom"})
_RESERVED = _WRITTEN | {"name", "arguments", "input", "tool_calls", "function_call"}
_RESERVED_BY_FOLD = frozenset(map(fold_name, _RESERVED))
_DEEPEST_MERGE = 8

MAX_ARGUMENTS_CHARS: Final = 1024 * 1024
MAX_ARGUMENTS_VALUES: Final = 50_000
"""Of one call, as of a call at the MCP door: checking and digesting takes time for each."""

TOO_MANY: Final = f"The answer proposes more than {MAX_CALLS} calls. Propose fewer at once."
TOO_LARGE: Final = "Its arguments are too large. Propose it again with smaller ones."
_NO_OBJECT = "It is not an object with a name and arguments."
_NO_NAME = "It has no name."
_BAD_NAME = f"Its name cannot be used: {TOOL_NAME_RULE}."
_TWO_KINDS = "It is of two kinds at once, or of a kind other than function and custom."


class Unreadable(NamedTuple):
    """Stands for a call, or for its arguments, where `why` says that it can't be read."""

    why: str


class Call:
    """One tool call, put together from its parts. `fault` says why it can't be read."""

    __slots__ = ("arguments", "call_id", "chars", "extra", "fault", "index", "kind", "members", "name", "whole")

    def __init__(self, index: int | None = None) -> None:
        self.index = index
        self.call_id = ""
        self.kind = ""  # what `type` says
        self.name = ""
        self.members: set[str] = set()  # of `function` and `custom`, those that it has
        self.arguments: list[str] = []
        self.chars = 0  # of the arguments
        self.whole = False  # the arguments came as an object, so nothing may follow them
        self.extra: dict[str, Any] = {}
        self.fault: str | None = None

    @property
    def says_nothing(self) -> bool:
        """Some providers send an empty call in every answer; nobody can execute it."""
        return not (self.call_id or self.name or any(self.arguments) or self.extra or self.fault)

    @property
    def proposal(self) -> Proposal:
        """The call as it is judged; its arguments are None where it can't be read."""
        fault = self.fault or self._fault_of_name or self._fault_of_kind
        if fault is not None:
            return Proposal(self.call_id, self.name, None, fault=fault)
        text = self._text
        # A custom tool's input is its one argument.
        if text is None:
            return Proposal(self.call_id, self.name, None)
        arguments = {"input": text} if "custom" in self.members else read_arguments(text)
        if arguments is not None and not _few_values(arguments):
            return Proposal(self.call_id, self.name, None, fault=TOO_LARGE)
        return Proposal(self.call_id, self.name, arguments)

    @property
    def _fault_of_name(self) -> str | None:
        if not self.name:
            return _NO_NAME
        return None if is_tool_name(self.name) else _BAD_NAME

    @property
    def _fault_of_kind(self) -> str | None:
        kinds = self.members | ({self.kind} if self.kind else set())
        return None if kinds in ({"function"}, {"custom"}) else _TWO_KINDS

    def written(self, call_id: str, *, index: int | None) -> dict[str, Any]:
        """The released call, from the values that were judged."""
        call: dict[str, Any] = {} if index is None else {"index": index}
        kind = "custom" if "custom" in self.members else "function"
        call |= {"id": call_id, "type": kind, kind: self.function}
        return call | self.extra

    @property
    def function(self) -> dict[str, str]:
        """The `function` (or `custom`) member of the released call, and the value of a released `function_call`.

        The arguments are the very text that was parsed strictly and judged.
        """
        if "custom" in self.members:
            return {"name": self.name, "input": self._text or ""}
        text = self._text or ""
        return {"name": self.name, "arguments": text if text.strip(JSON_SPACE) else "{}"}

    @property
    def _text(self) -> str | None:
        return _joined(self.arguments)

    def may_be(self, call_id: Any, name: str | None) -> bool:
        """Whether a part with an id and a name may belong to this call."""
        return self.call_id == call_id or (not self.call_id and self.name in ("", name))

    def redact(self, redactor: Redactor) -> None:
        """Take secrets out of the complete call, before it is judged."""
        self.name, self.call_id = redactor.redact(self.name), redactor.redact(self.call_id)
        self.extra = redactor.redact_value(self.extra)
        text = self._text
        if text is not None:
            self.arguments = [redactor.redact(text)]

    # ------------------------------------------------------------ its parts

    def take(self, part: dict[str, Any]) -> None:
        """Add one part: a delta, or the call of a complete answer."""
        self._take_id(part.get("id"))
        kind = part.get("type")
        if kind not in (None, ""):
            self.kind = self._same("types", self.kind, kind)
        for member, text in (("function", "arguments"), ("custom", "input")):
            inner = part.get(member)
            if inner is not None:
                self.members.add(member)
                self.take_inner(inner, text)
        _merge(self.extra, {key: part[key] for key in part if not _is_reserved(key)})

    def _take_id(self, call_id: Any) -> None:
        if call_id not in (None, ""):
            self.call_id = self._same("ids", self.call_id, call_id)

    def take_inner(self, inner: Any, text: str) -> None:
        """The name and the arguments (or the input: `text` is its key) of a part."""
        if not isinstance(inner, dict):
            self.fault = self.fault or _NO_OBJECT
            return
        name = inner.get("name")
        if name not in (None, ""):
            self.name = self._same("names", self.name, name)
        value = inner.get(text)
        if value in (None, ""):
            return
        if isinstance(value, Unreadable):
            self.fault = self.fault or value.why
        elif self.whole or not isinstance(value, str | dict):
            self.fault = self.fault or f"Its {text} can't be put together to one text."
        elif isinstance(value, str):
            self._append(value)
        else:
            if any(self.arguments):
                self.fault = self.fault or f"Its {text} can't be put together to one text."
            self.whole = True
            self.arguments, self.chars = [], 0
            self._append(compact(value))

    def _append(self, text: str) -> None:
        self.chars += len(text)
        if self.chars > MAX_ARGUMENTS_CHARS:
            self.fault = self.fault or TOO_LARGE
            self.arguments.clear()
        else:
            self.arguments.append(text)

    def _same(self, what: str, before: str, now: Any) -> str:
        if not isinstance(now, str):
            self.fault = self.fault or f"One of its {what} is not a text."
            return before
        if before and before != now:
            self.fault = self.fault or f"Its parts have two different {what}, so it could be read in two ways."
            return before
        return now


class Calls:
    """The calls of one choice, in the order in which a client would have them."""

    __slots__ = ("_by_id", "_by_index", "_calls", "_legacy", "_overflow", "_strays")

    def __init__(self) -> None:
        self._calls: list[Call] = []
        self._by_index: dict[int, Call] = {}
        self._by_id: dict[str, Call] = {}
        self._strays: list[Call] = []  # under another spelling
        self._legacy: Call | None = None
        self._overflow: str | None = None

    def add(self, tool_calls: Any, function_call: Any = None) -> None:
        """Add what one delta carries."""
        self._add(tool_calls, function_call, self._call_of)

    def add_whole(self, tool_calls: Any, function_call: Any = None) -> None:
        """Add what a complete message carries: every entry is a call of its own."""
        self._add(tool_calls, function_call, lambda part: self._begin(_index_of(part)))

    def _add(self, tool_calls: Any, function_call: Any, call_of: Callable[[dict[str, Any]], Call]) -> None:
        if self._overflow is not None:
            return
        if tool_calls and not isinstance(tool_calls, list):
            self._begin(None).fault = _NO_OBJECT
            tool_calls = ()
        for part in tool_calls or ():
            if isinstance(part, dict):
                call = call_of(part)
                call.take(part)
                if call.call_id:
                    self._by_id[call.call_id] = call
            elif isinstance(part, Unreadable):
                self._strays.append(self._begin(None))
                self._strays[-1].fault = part.why
            elif part is not None:
                self._begin(None).fault = _NO_OBJECT
            if len(self._calls) > MAX_CALLS:
                self.give_up(TOO_MANY)
                return
        if function_call is not None:
            self._legacy = self._legacy or Call()
            self._legacy.members.add("function")
            self._legacy.take_inner(function_call, "arguments")

    def __len__(self) -> int:
        return len(self._calls) + (self._legacy is not None)

    @property
    def has_given_up(self) -> bool:
        """Whether none of the calls is kept."""
        return self._overflow is not None

    def give_up(self, why: str = TOO_LARGE) -> None:
        """Keep none of the calls: there are too many of them, or they are too large."""
        self._overflow = why
        self._calls.clear()
        self._by_index.clear()
        self._by_id.clear()
        self._legacy = None

    def _call_of(self, part: dict[str, Any]) -> Call:
        """The call that a part belongs to.

        A new id with a name begins a call, whatever its index. Else the index decides; without one, a known id, then
        a name (which begins a call), then the call before.
        """
        index, call_id, name = _index_of(part), part.get("id") or None, _name_of(part)
        if index is None and "index" in part and part["index"] is not None:
            call = self._last or self._begin(None)
            call.fault = call.fault or "Its index is not a number of its place."
            return call
        begins = bool(call_id and name)
        if index is not None:
            known = self._by_index.get(index)
            if known is None or (begins and not known.may_be(call_id, name)):
                return self._begin(index)
            return known
        if isinstance(call_id, str) and call_id in self._by_id:
            return self._by_id[call_id]
        if name or self._last is None:
            return self._begin(None)
        return self._last

    @property
    def _last(self) -> Call | None:
        """The call before; what stands under another spelling is none that a part could belong to."""
        return next((call for call in reversed(self._calls) if call not in self._strays), None)

    def _begin(self, index: int | None) -> Call:
        call = Call(index)
        self._calls.append(call)
        if index is not None:
            self._by_index[index] = call
        return call

    # ------------------------------------------------------------ judged and written

    @property
    def calls(self) -> list[Call]:
        """Those that say anything; by their index, where each has one of its own."""
        if self._overflow is not None:
            call = Call()
            call.fault = self._overflow
            return [call]
        calls = [call for call in self._calls if not call.says_nothing]
        indices = [call.index for call in calls if call.index is not None]
        if len(set(indices)) == len(calls):
            calls.sort(key=lambda call: call.index or 0)
        legacy = self._legacy
        return calls if legacy is None or legacy.says_nothing else [*calls, legacy]

    def is_legacy(self, call: Call) -> bool:
        """Whether the call goes into `function_call` and not into `tool_calls`."""
        return call is self._legacy


class CallIds:
    """The ids of the released calls of one answer: no two alike, since clients join calls of one id.

    A call without an id of its own is given one, because clients need it to answer; the same for the same place.
    """

    def __init__(self, answer_id: object) -> None:
        self._answer_id = answer_id
        self._given: set[str] = set()

    def of(self, call: Call, choice: int, number: int) -> str:
        """The id of a call: its own, unless another call of the answer has it."""
        call_id = call.call_id
        if not call_id or call_id in self._given:
            seed = f"{self._answer_id}/{choice}/{number}".encode("utf-8", "replace")
            call_id = "call_" + hashlib.sha256(seed).hexdigest()[:24]
        self._given.add(call_id)
        return call_id


def compact(value: Any) -> str:
    """JSON text without spaces; integers keep their digits, halves of surrogate pairs are escaped."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(value, separators=(",", ":"))
    return text


def _is_reserved(key: str) -> bool:
    return fold_name(key) in _RESERVED_BY_FOLD


def _merge(old: dict[str, Any], new: dict[str, Any], depth: int = 0) -> None:
    """Take unknown members of a further part into `old`: objects are joined, of other values the last one counts."""
    for key, value in new.items():
        before = old.get(key)
        if not isinstance(before, dict) or not isinstance(value, dict):
            old[key] = value
        elif depth < _DEEPEST_MERGE:
            _merge(before, value, depth + 1)
        else:
            old[key] = value or before


def _few_values(arguments: dict[str, Any]) -> bool:
    left, pending = MAX_ARGUMENTS_VALUES, list[Any]([arguments])
    while pending and left >= 0:
        value = pending.pop()
        if isinstance(value, dict | list):
            left -= len(value)
            pending += value.values() if isinstance(value, dict) else value
    return left >= 0


def _index_of(part: dict[str, Any]) -> int | None:
    index = part.get("index")
    if type(index) is float and index.is_integer():
        index = int(index)
    return index if type(index) is int and index >= 0 else None


def _name_of(part: dict[str, Any]) -> str | None:
    return next(_names(part), None)


def _names(part: dict[str, Any]) -> Iterator[str]:
    for member in ("function", "custom"):
        inner = part.get(member)
        name = inner.get("name") if isinstance(inner, dict) else None
        if isinstance(name, str) and name:
            yield name


def _joined(parts: list[str]) -> str | None:
    """Join text parts; surrogate halves that meet become the character they are. None where one is left alone."""
    text = "".join(parts)
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        try:
            return text.encode("utf-16", "surrogatepass").decode("utf-16")
        except UnicodeDecodeError:
            return None
    return text
