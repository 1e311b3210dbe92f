"""The source of a submission without some of its methods: their branches cut out, not only switched off.

`run.uses("NAME")` becomes False, conditions are folded, and what nothing refers to any more goes: functions, classes,
constants, imports, modules of its own. Comments and layout of the rest stay as they are, so that the difference to
the old source can be read. Only what follows from the toggles is done; that the result trains exactly as
`--drop NAME` did is for the caller to show, by running both.
"""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from harness.errors import UserError
from harness.submission import Submission

MANIFEST = "submission.toml"
BY_HAND = "cut it out by hand in a folder of your own, then: speedrun submit FOLDER"


def source_without(submission: Submission, dropped: Sequence[str]) -> dict[str, bytes]:
    """Files by name, without the methods and their tables. Raises UserError where the toggles do not allow it.

    Hyperparameters of the methods stay, of no method: whether the rest asks for them only a run can tell.
    """
    python = {name: content.decode() for name, content in submission.files.items() if name.endswith(".py")}
    try:
        for name, text in python.items():
            _require_literal_names(text, name)
        after = _without_unused(python, {name: _folded(text, set(dropped)) for name, text in python.items()})
        _require_same_texts(python, after)
    except (SyntaxError, _Odd) as error:
        what = f"{submission.folder}: {', '.join(dropped)} cannot be cut out mechanically: {error}"
        raise UserError(what, BY_HAND) from None
    others = {name: content for name, content in submission.files.items() if not name.endswith(".py")}
    manifest = without_tables(submission.files[MANIFEST].decode(), [f"methods.{name}" for name in dropped])
    manifest = without_owner(manifest, dropped)
    return {**others, **{name: text.encode() for name, text in after.items()}, MANIFEST: manifest.encode()}


class _Odd(Exception):
    """Source whose toggles cannot be folded by text; says where."""


# submission.toml, line by line


def without_tables(text: str, names: Iterable[str]) -> str:
    """A TOML file without the tables [NAME], each up to the next one, and the comments right above them."""
    lines, gone = text.split("\n"), set(names)
    kept: list[str] = []
    skipping = False
    for line in lines:
        header = re.match(r"\s*\[\[?\s*([^\[\]]+?)\s*\]", line)
        if header:
            skipping = header[1] in gone
            while skipping and kept and kept[-1].lstrip().startswith("#"):
                kept.pop()
        if not skipping:
            kept.append(line)
    return "\n".join(kept).rstrip("\n") + "\n"


def without_owner(text: str, methods: Iterable[str]) -> str:
    """A submission.toml whose hyperparameters belong to none of the methods."""
    names = "|".join(map(re.escape, methods))
    return re.sub(rf"(?m)^\s*of\s*=\s*[\"'](?:{names})[\"'][^\n]*\n", "", text)


def with_field(text: str, name: str, value: str) -> str:
    """A submission.toml with another value of a field before its first table; it is added where there is none."""
    head, table, rest = text.partition("\n[")
    line = f"{name} = {_quoted(value)}"
    pattern = rf"(?m)^{name}\s*=.*$"
    head = re.sub(pattern, lambda _: line, head) if re.search(pattern, head) else f"{head.rstrip()}\n{line}\n"
    return head + table + rest


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


# Folding


def _require_literal_names(text: str, name: str) -> None:
    for node in ast.walk(ast.parse(text)):
        if _is_uses(node) and _used_method(node) is None:
            raise _Odd(f"{name}, line {getattr(node, 'lineno', 0)}: run.uses is asked for a name that is no literal")


def _is_uses(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "uses"


def _used_method(node: ast.AST) -> str | None:
    """The method that a call of `uses` asks for."""
    if isinstance(node, ast.Call) and _is_uses(node) and len(node.args) == 1 and not node.keywords:
        argument = node.args[0]
        if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
            return argument.value
    return None


@dataclass(frozen=True)
class _Edit:
    """Bytes [begin, end) of a source that give way to others."""

    begin: int
    end: int
    text: str


def _folded(text: str, dropped: set[str]) -> str:
    """The source with the methods' branches folded away, one edit at a time until there is nothing left to fold."""
    tracked = _names_of_toggles(ast.parse(text), dropped)
    if not any(_used_method(node) in dropped for node in ast.walk(ast.parse(text))):
        return text
    while (edit := next(_edits(text, dropped, tracked), None)) is not None:
        content = text.encode()
        text = (content[: edit.begin] + edit.text.encode() + content[edit.end :]).decode()
    return text


def _names_of_toggles(tree: ast.Module, dropped: set[str]) -> set[str]:
    """Names that are assigned once in the whole file, from something that asks for one of the methods."""
    stored = [node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load)]
    stored += [node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)]
    return {
        node.targets[0].id
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name)
        and stored.count(node.targets[0].id) == 1
        and any(_used_method(part) in dropped for part in ast.walk(node.value))
    }  # fmt: skip


def _edits(text: str, dropped: set[str], tracked: set[str]) -> Iterator[_Edit]:
    """What can be folded now, dearest last: calls to constants, operators, conditions, then whole statements."""
    tree = ast.parse(text)
    place = _Places(text)
    for node in ast.walk(tree):
        if _used_method(node) in dropped:
            yield place.edit(node, "False")
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.UnaryOp)
            and isinstance(node.op, ast.Not)
            and (value := _constant(node.operand)) is not None
        ):
            yield place.edit(node, str(not value))
        elif isinstance(node, ast.BoolOp) and (folded := _bool_op(node, place)) is not None:
            yield place.edit(node, folded)
        elif isinstance(node, ast.IfExp) and (value := _constant(node.test)) is not None:
            yield place.edit(node, place.expression(node.body if value else node.orelse))
    for node in ast.walk(tree):
        for body in _bodies(node):
            for statement in body:
                if isinstance(statement, ast.If) and (value := _constant(statement.test)) is not None:
                    yield place.unwrapped(statement, value, alone=len(body) == 1)
    yield from _propagated(tree, tracked, place)


def _constant(node: ast.AST) -> bool | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, bool) else None


def _bool_op(node: ast.BoolOp, place: _Places) -> str | None:
    """An `and` or `or` without its constants; None where it has none."""
    decides = isinstance(node.op, ast.Or)
    values = [_constant(value) for value in node.values]
    if decides in values:
        asked = node.values[: values.index(decides)]
        if not all(_constant(part) is not None or _is_harmless(part) for part in asked):
            raise _Odd(f"line {node.lineno}: a condition calls something that might matter")
        return str(decides)
    if all(value is None for value in values):
        return None
    kept = [part for part, value in zip(node.values, values, strict=True) if value is None]
    word = " or " if decides else " and "
    return word.join(_operand(part, place) for part in kept) or str(not decides)


def _operand(node: ast.expr, place: _Places) -> str:
    """An operand in the brackets that it may need, now that its neighbours are others."""
    text = place.expression(node)
    return f"({text})" if isinstance(node, ast.IfExp | ast.BoolOp | ast.Lambda | ast.NamedExpr) else text


def _is_harmless(node: ast.AST) -> bool:
    """Whether leaving an expression out changes nothing: names, constants, comparisons, and what asks the run."""
    calls = [part for part in ast.walk(node) if isinstance(part, ast.Call)]
    asks = all(isinstance(call.func, ast.Attribute) and call.func.attr in ("uses", "hparam") for call in calls)
    return asks and not any(isinstance(part, ast.NamedExpr | ast.Await | ast.Yield) for part in ast.walk(node))


def _bodies(node: ast.AST) -> list[list[ast.stmt]]:
    fields = [getattr(node, name, None) for name in ("body", "orelse", "finalbody")]
    return [field for field in fields if isinstance(field, list) and field and isinstance(field[0], ast.stmt)]


def _propagated(tree: ast.Module, tracked: set[str], place: _Places) -> Iterator[_Edit]:
    """A name that holds a folded toggle: its value in the place of every use, then its assignment goes."""
    for node in ast.walk(tree):
        for body in _bodies(node):
            for statement in body:
                if not isinstance(statement, ast.Assign) or not isinstance(statement.targets[0], ast.Name):
                    continue
                name, value = statement.targets[0].id, _constant(statement.value)
                if name not in tracked or value is None or len(statement.targets) > 1:
                    continue
                for use in ast.walk(tree):
                    if isinstance(use, ast.Name) and use.id == name and isinstance(use.ctx, ast.Load):
                        yield place.edit(use, str(value))
                yield place.removed(statement, alone=len(body) == 1)


class _Places:
    """Where the nodes of a syntax tree stand in their source, in bytes, as the tree counts columns."""

    def __init__(self, text: str) -> None:
        self._content = text.encode()
        self._lines = self._content.split(b"\n")
        self._starts = [0]
        for line in self._lines:
            self._starts.append(self._starts[-1] + len(line) + 1)

    def edit(self, node: ast.AST, text: str) -> _Edit:
        begin, end = self._span(node)
        return _Edit(begin, end, text)

    def expression(self, node: ast.expr) -> str:
        """The source of an expression, in brackets where it would not stand alone."""
        begin, end = self._span(node)
        text = self._content[begin:end].decode()
        try:
            ast.parse(text, mode="eval")
        except SyntaxError:
            return f"({text})"
        return text

    def removed(self, statement: ast.stmt, alone: bool) -> _Edit:
        """A statement with its whole lines taken out; `pass` where its block would be empty."""
        begin, end = self._line_span(statement)
        indent = self._indent(statement)
        return _Edit(begin, end, f"{indent}pass\n" if alone else "")

    def unwrapped(self, statement: ast.If, value: bool, alone: bool) -> _Edit:
        """An `if` whose condition is known, replaced by the branch that is taken."""
        indent = self._indent(statement)
        branch = statement.body if value else statement.orelse
        begin, end = self._line_span(statement)
        if self._is_elif(statement):
            return self._unwrapped_elif(statement, value, begin, end, indent)
        if not branch:
            return _Edit(begin, end, f"{indent}pass\n" if alone else "")
        if self._is_elif(branch[0]):
            return _Edit(begin, end, self._whole_lines(branch).replace("elif", "if", 1))
        return _Edit(begin, end, textwrap.indent(textwrap.dedent(self._block(statement, branch)), indent))

    def _unwrapped_elif(self, statement: ast.If, value: bool, begin: int, end: int, indent: str) -> _Edit:
        """An `elif` whose condition is known: `else` where it is true; where it is false what follows stays."""
        if value:
            return _Edit(begin, end, f"{indent}else:\n{self._block(statement, statement.body)}")
        if not statement.orelse:
            return _Edit(begin, end, "")
        if self._is_elif(statement.orelse[0]):
            return _Edit(begin, end, self._whole_lines(statement.orelse))
        return _Edit(begin, end, f"{indent}else:\n{self._block(statement, statement.orelse)}")

    def _is_elif(self, statement: ast.stmt) -> bool:
        return self._lines[statement.lineno - 1][statement.col_offset :].startswith(b"elif")

    def _whole_lines(self, branch: list[ast.stmt]) -> str:
        return self._content[self._starts[branch[0].lineno - 1] : self._starts[branch[-1].end_lineno or 0]].decode()

    def _block(self, statement: ast.If, branch: list[ast.stmt]) -> str:
        """The lines of a branch, with the comments at its head."""
        first, last = branch[0], branch[-1]
        if first.lineno == statement.lineno or self._lines[first.lineno - 1].lstrip().startswith(b"else:"):
            inner = " " * (first.col_offset if first.lineno != statement.lineno else statement.col_offset + 4)
            begin, end = self._span(first)[0], self._span(last)[1]
            return f"{inner}{self._content[begin:end].decode()}\n"
        number = first.lineno
        decorators = getattr(first, "decorator_list", [])
        number = min([number, *(decorator.lineno for decorator in decorators)])
        while self._lines[number - 2].lstrip().startswith(b"#"):
            number -= 1
        return self._content[self._starts[number - 1] : self._starts[last.end_lineno or last.lineno]].decode()

    def _indent(self, statement: ast.stmt) -> str:
        return " " * statement.col_offset

    def _line_span(self, statement: ast.stmt) -> tuple[int, int]:
        line = self._lines[statement.lineno - 1]
        rest = self._lines[(statement.end_lineno or statement.lineno) - 1][statement.end_col_offset :].strip()
        if line[: statement.col_offset].strip() or (rest and not rest.startswith(b"#")):
            raise _Odd(f"line {statement.lineno}: several statements on a line")
        return self._starts[statement.lineno - 1], self._starts[statement.end_lineno or statement.lineno]

    def _span(self, node: ast.AST) -> tuple[int, int]:
        begin = self._starts[node.lineno - 1] + node.col_offset  # type: ignore[attr-defined]
        return begin, self._starts[node.end_lineno - 1] + node.end_col_offset  # type: ignore[attr-defined]


# What nothing refers to any more


def _without_unused(before: Mapping[str, str], after: dict[str, str]) -> dict[str, str]:
    """The files without what was referred to in the old source and is not in the new one, until that is all."""
    known = _references(before.values())
    while True:
        unused = known - _references(after.values())
        edited = {
            name: _without_names(text, unused, _read(before[name]) - _read(text))
            for name, text in after.items()
            if name == "train.py" or _module(name) not in unused
        }
        if edited == after:
            return after
        after = edited


def _module(name: str) -> str:
    return name.removesuffix(".py").removesuffix("/__init__").replace("/", ".").rpartition(".")[2]


def _references(texts: Iterable[str]) -> set[str]:
    """Every name that is read or imported anywhere, other than from inside its own definition."""
    found: set[str] = set()
    for text in texts:
        found |= _read(text)
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Import):
                found |= {part for alias in node.names for part in alias.name.split(".")}
            elif isinstance(node, ast.ImportFrom):
                found |= {*(node.module or "").split("."), *(alias.name for alias in node.names)}
    return found


def _read(text: str) -> set[str]:
    """Every name that a file reads or asks for as an attribute, other than from inside its own definition."""
    found: set[str] = set()
    for statement in ast.parse(text).body:
        own = statement.name if isinstance(statement, ast.FunctionDef | ast.ClassDef) else None
        names = {n.id for n in ast.walk(statement) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
        names |= {node.attr for node in ast.walk(statement) if isinstance(node, ast.Attribute)}
        found |= names - {own}
    return found


def _without_names(text: str, definitions: set[str], imports: set[str]) -> str:
    """The source without top-level definitions and imports of these names, and the comments right above them."""
    tree, lines = ast.parse(text), text.split("\n")
    gone: set[int] = set()
    for statement in tree.body:
        names = _bound(statement)
        if names and names <= (imports if isinstance(statement, ast.Import | ast.ImportFrom) else definitions):
            decorators = getattr(statement, "decorator_list", [])
            begin = min([statement.lineno, *(decorator.lineno for decorator in decorators)])
            while begin > 1 and lines[begin - 2].startswith("#"):
                begin -= 1
            while begin > 1 and not lines[begin - 2].strip():
                begin -= 1  # the blank lines above it; those below it part its neighbours
            gone |= set(range(begin, (statement.end_lineno or statement.lineno) + 1))
    return "\n".join(line for number, line in enumerate(lines, start=1) if number not in gone)


def _bound(statement: ast.stmt) -> set[str]:
    """The names that a top-level statement does nothing but define or import."""
    if isinstance(statement, ast.FunctionDef | ast.ClassDef):
        return {statement.name}
    if isinstance(statement, ast.Assign) and all(isinstance(target, ast.Name) for target in statement.targets):
        return {target.id for target in statement.targets if isinstance(target, ast.Name)}
    if isinstance(statement, ast.Import):
        return {(alias.asname or alias.name).split(".")[0] for alias in statement.names}
    if isinstance(statement, ast.ImportFrom) and statement.module != "__future__":
        return {alias.asname or alias.name for alias in statement.names}
    return set()


def _require_same_texts(before: Mapping[str, str], after: Mapping[str, str]) -> None:
    """A text of several lines whose lines were moved would be another text."""
    old, new = ({t for text in texts.values() for t in _texts(text)} for texts in (before, after))
    if new - old:
        raise _Odd("a text of several lines stands in a branch that moves")


def _texts(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
