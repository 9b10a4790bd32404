"""What a request carries or points at beside text, and how many tokens that can be.

A picture costs by its pixels and sound by its length, whatever their bytes. So data in a place where only a picture or
a sound can be is taken out of the bytes and bounded by itself. Text is bounded by its bytes in every place, whatever it
looks like. What a request only points at (a URL, the id of a file) could be as large as the model can read.

Known parts are those of the OpenAI chat dialect and of its common relatives. Anything else is searched for what looks
like a reference, and a part of a kind that nobody here knows counts as one.
"""

from __future__ import annotations

import re
from typing import Any

from gateway.limits.inline_data import FILE_TOKENS, PICTURE_TOKENS, Inline, data_of_url, plain_base64

_TEXT_PARTS = frozenset({"text", "refusal", "input_text", "output_text", "thinking", "reasoning", "redacted_thinking"})
_TEXT_MEMBERS = frozenset(
    {
        *("type", "text", "refusal", "thinking", "reasoning", "summary", "signature", "data", "id", "index", "format"),
        *("cache_control", "annotations", "citations", "prompt_cache_breakpoint"),
    }
)
_NESTING_PARTS = frozenset({"tool_result", "function_call_output", "message"})
_KIND_OF_PART = {
    **dict.fromkeys(("image_url", "image", "input_image", "image_file", "image_base64"), "picture"),
    **dict.fromkeys(("input_audio", "audio", "audio_url", "output_audio"), "sound"),
    **dict.fromkeys(("file", "input_file", "document", "file_url", "pdf"), "file"),
    **dict.fromkeys(("video_url", "input_video", "video", "media"), "film"),
}
_KIND_OF_WORD = {
    **dict.fromkeys(("image", "images", "picture", "pictures", "photo", "screenshot"), "picture"),
    **dict.fromkeys(("audio", "audios", "sound", "voice"), "sound"),
    **dict.fromkeys(("video", "videos", "film", "media"), "film"),
    **dict.fromkeys(("file", "files", "document", "documents", "attachment", "attachments", "pdf", "pdfs"), "file"),
}
_POINTERS = frozenset(
    {
        *("url", "urls", "uri", "uris", "href", "container", "conversation", "thread", "previous", "cached"),
        *("vector", "collection", "collections", "knowledge", "dataset", "datasets"),
    }
)
_POINTERS_BY_ID = _POINTERS | {"prompt", "source", "response", "store", "stored", "hash"}
_DATA_MEMBERS = frozenset({"data", "file_data", "base64", "b64_json", "bytes", "blob", "image_base64"})
_PLAIN_MEMBERS = frozenset({"type", "detail", "format", "mime_type", "media_type", "filename", "name", "title", "role"})
_TEXTUAL = frozenset({"text", "content", "arguments", "description", "context", "reasoning", "thinking", "signature"})
_SCHEME = re.compile(r"\s*([A-Za-z][A-Za-z0-9+.-]{1,15}):", re.ASCII)
_FETCHED = frozenset({"http", "https", "ftp", "ftps", "gs", "s3", "file", "blob", "ipfs", "az", "abfs", "abfss"})
_WORDS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+")
_MAX_DEPTH = 100


class Attachments:
    """Counts what is found; `bound` says how many tokens that can be."""

    def __init__(self) -> None:
        self.pictures = 0
        self.document_tokens = 0  # of files that came along
        self.sound_tokens = 0  # of sound that came along, and of what could be sound
        self.references = 0  # to files and pages of unknown size
        self.unknown_references = 0  # to what could be sound or film
        self.writes_cache = False  # it asks for a prompt cache
        self.inline_bytes = 0  # of the body: data whose bytes say nothing of its tokens

    def bound(self, window: int | None) -> tuple[int, int]:
        """(tokens priced as text, tokens that could be sound). A model reads no more than its window."""
        known = self.pictures * PICTURE_TOKENS + self.document_tokens
        if window is None:
            return known + self.references * FILE_TOKENS, self.sound_tokens + self.unknown_references * FILE_TOKENS
        document = window if self.references else min(known, window)
        return document, window if self.unknown_references else min(self.sound_tokens, window)

    @property
    def found(self) -> int:
        """How much was found so far."""
        return self.pictures + self.references + self.unknown_references + self.document_tokens + self.sound_tokens

    # ------------------------------------------------------------ messages

    def add_content(self, content: Any, depth: int = 0) -> None:
        """Take in the content of a message: text, a part, or a list of parts."""
        for part in content if isinstance(content, list) else [content]:
            if isinstance(part, list):
                if depth > _MAX_DEPTH:
                    self.unknown_references += 1
                else:
                    self.add_content(part, depth + 1)
            elif isinstance(part, dict):
                self._add_part(part, depth)

    def _add_part(self, part: dict[str, Any], depth: int) -> None:
        kind = part.get("type")
        kind = kind if isinstance(kind, str) else ""
        self.writes_cache = self.writes_cache or "cache_control" in part
        if kind in _TEXT_PARTS:
            for name, value in part.items():
                if name not in _TEXT_MEMBERS:
                    self.search(value, name)
            return
        before = self.found
        if kind in _NESTING_PARTS and depth < _MAX_DEPTH:
            for name, value in part.items():
                if name in ("content", "output"):
                    self.add_content(value, depth + 1)
                elif name != "type":
                    self.search(value, name)
            return
        context = _KIND_OF_PART.get(kind, "")
        rest = {name: value for name, value in part.items() if name != "type"}
        self.search(rest, "", context, is_media=bool(context))
        if self.found == before:
            self._refer(context)

    # ------------------------------------------------------------ anything else

    def search(self, value: Any, name: str, context: str = "", *, is_media: bool = False) -> None:
        """Count what a value holds or points at; `context` is the kind of thing that it belongs to, if known, and
        `is_media` says that nobody could read its data as text."""
        self.writes_cache = self.writes_cache or name == "cache_control"
        todo: list[tuple[str, Any, str, dict[str, Any]]] = [(name, value, context, {})]
        while todo:
            name, value, context, holder = todo.pop()
            context = _context(name, context)
            if isinstance(value, dict):
                self.writes_cache = self.writes_cache or "cache_control" in value
                kind = value.get("type")
                if kind == "url_citation":  # what an earlier answer quoted; nobody fetches it
                    continue
                inner = _KIND_OF_PART.get(kind, context) if isinstance(kind, str) else context
                todo += [(key, one, inner, value) for key, one in value.items()]
            elif isinstance(value, list):
                todo += [(name, one, context, holder) for one in value]
            elif isinstance(value, str) and value:
                self._add_text(name, value, context, holder, is_media)

    def _add_text(self, name: str, text: str, context: str, holder: dict[str, Any], is_media: bool) -> None:
        is_text = name in _TEXTUAL or holder.get("type") == "text"
        if is_text and not context:
            return
        inline = data_of_url(text)
        if inline is None and context and name in _DATA_MEMBERS and not is_text:
            inline = plain_base64(text, holder, context)
        if inline is not None:
            self._add_inline(inline if is_media and not is_text else inline._replace(body_bytes=0))
            return
        scheme = _SCHEME.match(text)
        if scheme is not None and scheme[1].lower() in _FETCHED:
            if context == "picture" and scheme[1].lower() not in ("http", "https"):
                self.references += 1
            else:
                self._refer(context)
        elif name not in _PLAIN_MEMBERS and not is_text and _points(_words(name), context):
            self._refer(context)

    def _add_inline(self, inline: Inline) -> None:
        self.inline_bytes += inline.body_bytes
        if inline.kind == "picture":
            self.pictures += 1
        elif inline.kind in ("sound", "film"):
            self.sound_tokens += inline.tokens
            self.unknown_references += inline.is_open
        else:
            self.document_tokens += inline.tokens

    def _refer(self, context: str) -> None:
        if context == "picture":
            self.pictures += 1
        elif context == "file":
            self.references += 1
        else:
            self.unknown_references += 1


def _context(name: str, outer: str) -> str:
    """What a member of this name holds, inside something of a kind."""
    kind = next((_KIND_OF_WORD[word] for word in _words(name) if word in _KIND_OF_WORD), outer)
    return "picture" if outer == "picture" and kind == "file" else kind  # a picture by the id of its file


def _points(words: list[str], context: str) -> bool:
    """Whether a member of this name, where it holds text, points at something that is not in the request."""
    last = words[-1] if words else ""
    if last in ("id", "ids"):
        return bool(context) or not _POINTERS_BY_ID.isdisjoint(words)
    return not _POINTERS.isdisjoint(words) or last in _KIND_OF_WORD


def _words(name: str) -> list[str]:
    """A member's name in its words: `file_id`, `fileId` and `FILE-ID` alike."""
    return [word.lower() for word in _WORDS.findall(name)]
