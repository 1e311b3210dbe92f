"""Packed data is found in every usual encoding and form; text, code and names are not taken for it."""

from __future__ import annotations

import ast
import base64
import random
import textwrap
from pathlib import Path

import pytest

from harness.checks import packed
from harness.checks.packed import packed_data, texts_of_source
from harness.paths import BASELINES, PACKAGE, SUBMISSIONS

ENCODINGS = {
    "base64": lambda data: base64.b64encode(data).decode(),
    "base85": lambda data: base64.b85encode(data).decode(),
    "hexadecimal": bytes.hex,
    "decimal": lambda data: " ".join(map(str, data)),
    "latin": lambda data: data.decode("latin-1"),
    "ideographs": lambda data: "".join(chr(0x4E00 + byte) for byte in data),
}
FORMS = {
    "string": lambda text: f"TABLE = {text!r}\n",
    "concatenated": lambda text: "TABLE = (\n" + "".join(f"    {part!r}\n" for part in pieces(text, 40)) + ")\n",
    "short strings": lambda text: f"TABLE = {pieces(text, 20)!r}\n",
    "constants": lambda text: "".join(f"T{index} = {part!r}\n" for index, part in enumerate(pieces(text, 30))),
    "docstring": lambda text: f"def f():\n    {text!r}\n",
    "comments": lambda text: "".join(f"# {line}\n" for line in textwrap.wrap(ascii(text), 80)),
    "bytes": lambda text: f"TABLE = {text.encode()!r}\n",
}
HONEST = '''
"""Reads the stream in windows of 128 tokens; the learning rate of 0.003 decays to zero over 1,300 steps.

Naïve façades aside, the résumé of this module is short: β and δ are momenta, → marks what follows. See
https://arxiv.org/abs/1706.03762 and https://github.com/KellerJordan/modded-nanogpt/blob/master/train_gpt.py.
"""
NAMES = ["embedding", "query", "key", "value", "projection", "expand", "contract", "head", "norm", "bias"] * 8
LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
DIGEST = "1833c1bcff13c9b4975a9acde9d10adc718cbb78feb6e9a80c1068f03ce9f745"
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
'''


def pieces(text: str, size: int) -> list[str]:
    return [text[start : start + size] for start in range(0, len(text), size)]


def found(source: str) -> list[str]:
    return [said for kind, text in texts_of_source(source).items() if (said := packed_data(kind, text))]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_table_of_500_bytes_is_found(encoding: str, form: str) -> None:
    source = FORMS[form](ENCODINGS[encoding](random.Random(encoding + form).randbytes(500)))
    ast.parse(source)
    assert found(source)


def test_a_table_in_names_is_found() -> None:
    text = base64.b32encode(random.Random(0).randbytes(400)).decode().rstrip("=").lower()
    assert found("".join(f"x{part} = None\n" for part in pieces(text, 40)))


def test_a_table_in_one_long_number_is_found() -> None:
    assert "characters" in found(f"TABLE = {random.Random(0).getrandbits(1000)}\n")[0]


def test_a_module_that_the_tokenizer_refuses_is_read_as_it_stands() -> None:
    source = 'class A:\n   \r """Two\\\nlines."""\n# '
    ast.parse(source)
    table = base64.b64encode(random.Random(0).randbytes(500)).decode()
    assert found(source) == []
    assert found(source + table)


def test_honest_text_is_left_alone() -> None:
    assert found(HONEST) == []


@pytest.mark.parametrize("folder", [PACKAGE, BASELINES, SUBMISSIONS])
def test_the_modules_of_this_repository_are_left_alone(folder: Path) -> None:
    assert {path.name: said for path in folder.rglob("*.py") if (said := found(path.read_text()))} == {}


@pytest.mark.parametrize("module", [textwrap, random, ast, packed])
def test_honest_modules_are_left_alone(module: object) -> None:
    assert found(Path(module.__file__).read_text()) == []
