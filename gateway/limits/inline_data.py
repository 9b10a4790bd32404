"""Data that stands in a request as base64: what it is, and how many tokens it can be at most.

Assumptions, and where they come from:

- A picture costs by its pixels: 8 tiles of 5,667 tokens and a base of 2,833 are the dearest rule known.
  Source: https://platform.openai.com/docs/guides/images-vision (cost of gpt-4o-mini at high detail).
- Sound costs by its length: 32 tokens a second is the most that a provider counts (Gemini; OpenAI counts 10).
  Source: https://ai.google.dev/gemini-api/docs/tokens.
- The length of sound: a WAV file of plain samples says its bytes a second; an MP3 has at least 8 kbit a second. Formats
  that can hold silence in next to no bytes (FLAC, Opus, AAC) have no such bound: they count as of unknown length.
  Source: ISO/IEC 11172-3 and 13818-3 (bit rates of layer III).
- Any other file (PDF, office documents) has `FILE_TOKENS`, or one token for each of its bytes if that is more.
"""

from __future__ import annotations

import binascii
import struct
from typing import Any, NamedTuple

PICTURE_TOKENS = 50_000
"""One picture at full detail."""

FILE_TOKENS = 200_000
"""One file, sound or film of unknown size: as much as most models can read at all."""

SOUND_TOKENS_PER_S = 32

_MP3_BYTES_PER_S = 1_000
_SPOKEN_BYTES_PER_TOKEN = 16  # Opus at 6 kbit a second has 23
_SLOWEST_WAV_BYTES_PER_S = 4_000  # 8-bit samples 4,000 times a second; speech needs more
_HEAD_CHARS = 8_192  # of base64: enough for the chunks that may stand before a WAV file's format
_BASE64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/-_=\r\n"
_PICTURE_TYPES = frozenset(
    f"image/{name}" for name in ("png", "jpeg", "jpg", "webp", "gif", "bmp", "heic", "heif", "avif")
)
_TEXT_TYPES = ("text/", "application/json", "application/xml", "application/yaml", "application/x-yaml")
_PCM = frozenset({1, 3, 0xFFFE})  # formats of a WAV file whose samples are not compressed


class Inline(NamedTuple):
    """Data in a request. `body_bytes`: of the request's body, which say nothing of its tokens."""

    kind: str  # picture, sound, film, file
    tokens: int
    body_bytes: int = 0
    is_open: bool = False  # it can have more tokens than that, as many as the model reads


def data_of_url(text: str) -> Inline | None:
    """What a `data:` URL holds; None for text that is none. What is no base64 is text, and bounded by its bytes."""
    if text[:5].lower() != "data:":
        return None
    head, comma, data = text.partition(",")
    media, *parameters = head[5:].strip().lower().split(";")
    if not comma or "base64" not in (one.strip() for one in parameters) or not _is_base64(data):
        return Inline(_kind(media), PICTURE_TOKENS if media in _PICTURE_TYPES else FILE_TOKENS)
    return _of(media, data)


def plain_base64(data: str, holder: dict[str, Any], context: str) -> Inline:
    """What base64 without a URL around it holds, by the members that stand beside it and where it stands."""
    named = next((holder[name] for name in ("media_type", "mime_type", "format") if name in holder), None)
    media = named.lower() if isinstance(named, str) else ""
    if "/" not in media:
        prefix = {"sound": "audio/", "picture": "image/"}.get(context, "application/")
        media = prefix + (media or ("png" if context == "picture" else "octet-stream"))
    if not _is_base64(data):
        return Inline(_kind(media), FILE_TOKENS)
    return _of(media, data)


def _of(media: str, data: str) -> Inline:
    size = len(data) * 3 // 4 + 3
    kind = _kind(media)
    if kind == "picture":
        return Inline(kind, PICTURE_TOKENS, len(data))
    if kind == "sound":
        seconds = _seconds(media, data, size)
        if seconds is None:
            return Inline(kind, size // _SPOKEN_BYTES_PER_TOKEN, len(data), is_open=True)
        return Inline(kind, seconds * SOUND_TOKENS_PER_S, len(data))
    if media.startswith(_TEXT_TYPES):
        return Inline("file", size * 3 // 2)  # an encoding of two bytes a character makes up to three of UTF-8
    return Inline(kind, max(FILE_TOKENS, size), len(data), is_open=kind == "film")


def _kind(media: str) -> str:
    if media in _PICTURE_TYPES:
        return "picture"
    if media.startswith("audio/"):
        return "sound"
    return "film" if media.startswith("video/") else "file"


def _seconds(media: str, data: str, size: int) -> int | None:
    """How long a sound can be, rounded up; None where its bytes do not say."""
    head = _head(data)
    if media in ("audio/wav", "audio/x-wav", "audio/wave", "audio/vnd.wave") and head[:4] == b"RIFF":
        rate = _wav_bytes_per_s(head)
        return None if rate is None else size // rate + 1
    is_mp3 = head[:3] == b"ID3" or (len(head) > 1 and head[0] == 0xFF and head[1] & 0xE6 == 0xE2)
    if media in ("audio/mp3", "audio/mpeg") and is_mp3:
        return size // _MP3_BYTES_PER_S + 1
    return None


def _wav_bytes_per_s(head: bytes) -> int | None:
    """Source: Microsoft and IBM, Multimedia Programming Interface and Data Specifications 1.0 (RIFF WAVE)."""
    at = 12
    while at + 24 <= len(head) and head[8:12] == b"WAVE":
        name, length = head[at : at + 4], int.from_bytes(head[at + 4 : at + 8], "little")
        if name == b"fmt ":
            form, channels, samples, _, _, bits = struct.unpack_from("<HHIIHH", head, at + 8)
            rate: int = samples * channels * bits // 8
            return rate if form in _PCM and rate >= _SLOWEST_WAV_BYTES_PER_S else None
        at += 8 + length + length % 2
    return None


def _head(data: str) -> bytes:
    start = "".join(data[: _HEAD_CHARS + 64].split())[:_HEAD_CHARS].replace("-", "+").replace("_", "/")
    try:
        return binascii.a2b_base64(start[: len(start) // 4 * 4])
    except (binascii.Error, ValueError):
        return b""


def _is_base64(data: str) -> bool:
    return data.isascii() and not data.encode("ascii").translate(None, _BASE64)
