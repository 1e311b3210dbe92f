"""Looks for data packed into text: tables hidden in strings, comments or names, where the caps do not count them.

Honest text, English and code alike, uses few letters often: the entropy of its letters is near 4.1 bits. Packed
bytes use all of them evenly, or the first few, or digits. The thresholds lie between the two, measured by
`python benchmarks/packed_data.py` on the standard library, torch and the common encodings
(benchmarks/results/packed_data.md). Letters that look like words cannot be told from words: this is a cheap
first line, the sandbox and a person who reads the source are the next ones.
"""

from __future__ import annotations

import ast
import io
import math
import re
import tokenize
from collections import Counter
from collections.abc import Iterator

WINDOW = 400  # characters looked at together; a window every half of that
LETTERS_NEEDED = 100  # with fewer letters their entropy says little
MAX_LETTER_BITS = 4.42
MIN_LETTER_BITS = 2.9  # hexadecimal digits and escapes use only the first letters
MAX_DIGIT_SHARE = 0.45
MAX_FOREIGN_SHARE = 0.3  # characters outside of printable ASCII
MAX_WORD = 64  # letters and digits in one piece
MAX_NUMBER = 40  # characters of one number

_WORD = re.compile(r"[A-Za-z0-9]+")


def texts_of_source(source: str) -> dict[str, str]:
    """The text of a valid Python module by kind: its strings, comments and names, each in order and joined.

    Joined, so that a table cut into many short strings is still one text. bytes are read as Latin-1. A module that
    the parser takes but the tokenizer does not (lone carriage returns) is one text as it stands.
    """
    try:
        tokens = list(tokenize.generate_tokens(io.StringIO(source).readline))
    except (tokenize.TokenError, SyntaxError):
        return {"source": source}
    strings = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            strings.append(node.value)
        elif isinstance(node, ast.Constant) and isinstance(node.value, bytes):
            strings.append(node.value.decode("latin-1"))
    comments: list[str] = []
    names: dict[str, None] = {}  # each once, in order
    numbers: list[str] = []
    for token in tokens:
        if token.type == tokenize.COMMENT:
            comments.append(token.string.lstrip("# "))
        elif token.type == tokenize.NAME:
            names[token.string] = None
        elif token.type == tokenize.NUMBER and len(token.string) > MAX_NUMBER:
            numbers.append(token.string)
    texts = {"strings": strings, "comments": comments, "names": list(names), "numbers": numbers}
    return {kind: " ".join(parts) for kind, parts in texts.items()}


def packed_data(kind: str, text: str) -> str | None:
    """What looks like packed data in a text, with its beginning; None where nothing does."""
    if kind == "numbers" and text:
        return f"a number of more than {MAX_NUMBER} characters: {_beginning(text)}"
    word = max(_WORD.findall(text), key=len, default="")
    if len(word) > MAX_WORD:
        return f"{len(word):,} letters and digits in one piece: {_beginning(word)}"
    for window in _windows(text):
        suspicion = _suspicion(window)
        if suspicion:
            return f"{suspicion}: {_beginning(window)}"
    return None


def _windows(text: str) -> Iterator[str]:
    text = " ".join(text.split())
    for start in range(0, len(text) - WINDOW + 1, WINDOW // 2):
        yield text[start : start + WINDOW]


def _suspicion(window: str) -> str | None:
    characters = window.replace(" ", "")
    digits = sum("0" <= character <= "9" for character in characters) / len(characters)
    foreign = sum(not " " <= character <= "~" for character in characters) / len(characters)
    if digits > MAX_DIGIT_SHARE:
        return f"{digits:.0%} of {WINDOW} characters are digits"
    if foreign > MAX_FOREIGN_SHARE:
        return f"{foreign:.0%} of {WINDOW} characters are not printable ASCII"
    letters = [character for character in characters.lower() if "a" <= character <= "z"]
    bits = entropy(letters)
    if len(letters) >= LETTERS_NEEDED and not MIN_LETTER_BITS < bits < MAX_LETTER_BITS:
        return f"letters that are distributed as in packed data ({bits:.2f} bits each; text has about 4.1)"
    return None


def entropy(letters: list[str]) -> float:
    """The plug-in estimate of the entropy of a row of symbols, in bits a symbol."""
    total = len(letters)
    return -sum(count / total * math.log2(count / total) for count in Counter(letters).values())


def _beginning(text: str) -> str:
    return repr(text[:24]) + ("..." if len(text) > 24 else "")
