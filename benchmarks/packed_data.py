"""How often does the scan for packed data (harness/checks/packed.py) cry wolf, and how often does it miss?

    python benchmarks/packed_data.py

Honest twins are the modules of the standard library, of torch and of this repository. Packed data are random bytes in
the usual encodings, written as a string, as a list of short strings and as comments.
"""

from __future__ import annotations

import base64
import random
import sysconfig
import textwrap
import warnings
from collections.abc import Callable
from pathlib import Path

import torch

from harness.checks.packed import packed_data, texts_of_source
from harness.paths import BASELINES, PACKAGE, SUBMISSIONS

TRIALS = 100
SIZES = (200, 400, 1600)
# Modules whose names say that they are tables of characters or packed programs: no honest twins.
TABLES = ("encodings", "unicodedata", "_sysconfigdata", "test", "ensurepip", "lib2to3", "idlelib", "pydoc_data")


def words_of(data: bytes) -> str:
    """Four bits a letter, in pieces as long as words."""
    letters = "".join("etaoinshrdlucmfp"[nibble] for byte in data for nibble in (byte >> 4, byte & 15))
    return " ".join(letters[start : start + 5] for start in range(0, len(letters), 5))


ENCODINGS: dict[str, Callable[[bytes], str]] = {
    "base64": lambda data: base64.b64encode(data).decode(),
    "base85": lambda data: base64.b85encode(data).decode(),
    "base32": lambda data: base64.b32encode(data).decode(),
    "hexadecimal": bytes.hex,
    "escapes": lambda data: "".join(f"\\x{byte:02x}" for byte in data),
    "decimal": lambda data: " ".join(map(str, data)),
    "ideographs": lambda data: "".join(chr(0x4E00 + 251 * byte // 3) for byte in data),
    "letters in the pieces of words": words_of,
}
FORMS: dict[str, Callable[[str], str]] = {
    "string": lambda text: f"TABLE = {text!r}\n",
    "short strings": lambda text: f"TABLE = {[text[start : start + 20] for start in range(0, len(text), 20)]!r}\n",
    "comments": lambda text: "".join(f"# {line}\n" for line in textwrap.wrap(text, 80)),
}


def found(source: str) -> list[str]:
    """What the scan says about a module."""
    return [said for kind, text in texts_of_source(source).items() if (said := packed_data(kind, text))]


def honest(name: str, folders: list[Path]) -> list[str]:
    """Prints the row of one kind of honest modules; returns what was flagged in them."""
    flagged, read = [], 0
    for folder in folders:
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder).parts
            if "site-packages" in parts or any(part.startswith(TABLES) for part in parts):
                continue
            try:
                said = found(path.read_text())
            except (SyntaxError, ValueError):
                continue
            read += 1
            flagged += [f"{name}, {'/'.join(parts)}: {said[0]}"] if said else []
    print(f"| {name} | {read:,} | {len(flagged)} ({100 * len(flagged) / read:.1f}%) |")
    return flagged


def main() -> None:
    """Prints the two tables."""
    warnings.simplefilter("ignore")
    random.seed(0)
    print("| honest modules | read | flagged |\n|---|--:|--:|")
    flagged = honest("standard library", [Path(sysconfig.get_paths()["stdlib"])])
    flagged += honest("torch", [Path(torch.__file__).parent])
    flagged += honest("this repository", [PACKAGE, BASELINES, SUBMISSIONS])
    print("\nFlagged, with the beginning of what was:\n")
    for line in flagged:
        print(f"- {line}")
    print(f"\nShare found of {TRIALS} tables of random bytes each.\n")
    print("| encoding | form | " + " | ".join(f"{size:,} bytes" for size in SIZES) + " |")
    print("|---|---|" + "--:|" * len(SIZES))
    for encoding, encode in ENCODINGS.items():
        for form, write in FORMS.items():
            shares = [
                sum(bool(found(write(encode(random.randbytes(size))))) for _ in range(TRIALS)) / TRIALS
                for size in SIZES
            ]
            print(f"| {encoding} | {form} | " + " | ".join(f"{share:.0%}" for share in shares) + " |")


if __name__ == "__main__":
    main()
