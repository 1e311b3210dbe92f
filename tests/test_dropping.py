"""Cutting a method out of a source: what its toggles allow, and nothing else."""

from __future__ import annotations

import ast
import textwrap
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.dropping import source_without, with_field, without_owner, without_tables
from harness.errors import UserError
from harness.paths import SUBMISSIONS
from harness.submission import Submission, load_submission
from tests.conftest import Toy
from tests.toy_submission import MANIFEST, write_submission


def loaded(toy: Toy, folder: Path, script: str, **modules: str) -> Submission:
    """A submission of this script; `momentum` is its method."""
    write_submission(folder, textwrap.dedent(script), MANIFEST)
    for name, text in modules.items():
        (folder / f"{name}.py").write_text(textwrap.dedent(text))
    return load_submission(folder, toy.task)


def cut(toy: Toy, folder: Path, script: str) -> str:
    return source_without(loaded(toy, folder, script), ["momentum"])["train.py"].decode()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("x = 1 if run.uses('momentum') else 2", "x = 2"),
        ("x = 1 if not run.uses('momentum') else 2", "x = 1"),
        ("f(a and run.uses('momentum'))", "f(False)"),
        ("x = a or run.uses('momentum')", "x = a"),
        ("x = a or b or run.uses('momentum')", "x = a or b"),
        ("x = k and (a if b else c) and not run.uses('momentum')", "x = k and (a if b else c)"),
        ("x = f(a, run.uses('momentum'))", "x = f(a, False)"),
        ("x = 1 if run.uses('momentum') and run.uses('other') else (\n    a +\n    b\n)", "x = (a +\n    b)"),
        ("if run.uses('momentum'):\n    a()\nb()", "b()"),
        ("if run.uses('momentum'):\n    a()\nelse:\n    # why\n    b()  # what\nc()", "# why\nb()  # what\nc()"),
        ("if not run.uses('momentum'):\n    a()\n\n    b()", "a()\n\nb()"),
        ("if run.uses('momentum'):\n    a()\nelif k:\n    b()\nelse:\n    c()", "if k:\n    b()\nelse:\n    c()"),
        ("if k:\n    a()\nelif run.uses('momentum'):\n    b()\nelse:\n    c()", "if k:\n    a()\nelse:\n    c()"),
        ("if k:\n    a()\nelif not run.uses('momentum'):\n    b()", "if k:\n    a()\nelse:\n    b()"),
        ("if k:\n    a()\nelif run.uses('momentum'):\n    b()\nelif l:\n    c()", "if k:\n    a()\nelif l:\n    c()"),
        ("for i in j:\n    if run.uses('momentum'):\n        a()", "for i in j:\n    pass"),
        ("if run.uses('momentum'): a()\nelse: b()", "b()"),
        ("on = run.uses('momentum')\nif on:\n    a()\nb(on)", "b(False)"),
        ("on = run.uses('momentum')\non = f(on)", "on = False\non = f(on)"),
        ("x = 'é' if run.uses('momentum') else 'ü' + y", "x = 'ü' + y"),
        ("while True:\n    if run.uses('other'):\n        a()", "while True:\n    if run.uses('other'):\n        a()"),
    ],
)
def test_conditions_are_folded(toy: Toy, tmp_path: Path, before: str, after: str) -> None:
    frame = "def main(run):\n{}\n\n\nmain(1)\n"
    found = cut(toy, tmp_path / "s", frame.format(textwrap.indent(before, "    ")))
    assert found == frame.format(textwrap.indent(after, "    "))


def test_what_nothing_refers_to_any_more_goes(toy: Toy, tmp_path: Path) -> None:
    submission = loaded(
        toy,
        tmp_path / "s",
        '''
        import math

        import torch
        from ballast import Stones
        from shared import both

        WEIGHT = 3  # stays: it was never read

        # how heavy
        LOAD = math.pi


        def helper(x):
            """Calls itself, which does not keep it."""
            return helper(x - LOAD)


        def main(run):
            if run.uses("momentum"):
                helper(Stones(both()))
            torch.manual_seed(1)


        main(1)
        ''',
        ballast="class Stones:\n    pass\n",
        shared="def both():\n    return 1\n\n\ndef other():\n    return both()\n",
    )
    files = source_without(submission, ["momentum"])
    assert "ballast.py" not in files and "shared.py" not in files
    text = files["train.py"].decode()
    assert text.strip() == textwrap.dedent(
        """
        import torch

        WEIGHT = 3  # stays: it was never read


        def main(run):
            torch.manual_seed(1)


        main(1)
        """
    ).strip()  # fmt: skip
    manifest = files["submission.toml"].decode()
    assert "momentum" not in manifest and "[hparams.lr]" in manifest


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("def main(run):\n    return run.uses(name)\n", "line 2: run.uses is asked for a name that is no literal"),
        ("def main(run):\n    return draw() and run.uses('momentum')\n", "calls something that might matter"),
        (
            "def main(run):\n    if not run.uses('momentum'):\n        x = '''a\n        b'''\n",
            "a text of several lines stands in a branch that moves",
        ),
    ],
)
def test_what_cannot_be_cut_by_text_is_refused(toy: Toy, tmp_path: Path, script: str, said: str) -> None:
    with pytest.raises(UserError, match="cannot be cut out mechanically") as raised:
        cut(toy, tmp_path / "s", script)
    assert said in raised.value.message


def test_muon_leaves_its_fallback_behind() -> None:
    submission = load_submission(SUBMISSIONS / "fineweb-muon")
    files = source_without(submission, ["muon"])
    text = files["train.py"].decode()
    assert "class Muon" not in text and "orthogonalize(" not in text and 'run.hparam("matrix_lr")' in text
    kept = {line for line in text.splitlines() if line.strip().startswith("#")}
    assert kept <= set(submission.files["train.py"].decode().splitlines())


conditions = st.recursive(
    st.sampled_from(["run.uses('momentum')", "run.uses('other')", "a", "b"]),
    lambda inner: st.one_of(
        inner.map(lambda x: f"not ({x})"),
        st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(lambda t: f"({t[0]} {t[1]} {t[2]})"),
        st.tuples(inner, st.sampled_from(["and", "or"]), inner, inner).map(
            lambda t: f"({t[0]} {t[1]} {t[2]} {t[1]} {t[3]})"
        ),
        st.tuples(inner, inner, inner).map(lambda t: f"{t[0]} if {t[1]} else {t[2]}").map(lambda x: f"({x})"),
    ),
    max_leaves=8,
)


@settings(deadline=None, max_examples=200)
@given(condition=conditions, other=st.booleans(), a=st.booleans(), b=st.booleans())
def test_folding_never_changes_what_a_condition_says(
    toy: Toy, tmp_path_factory: pytest.TempPathFactory, condition: str, other: bool, a: bool, b: bool
) -> None:
    script = f"def main(run, a, b):\n    if {condition}:\n        return 1\n    return 2\n\n\nmain(1, 2, 3)\n"
    after = cut(toy, tmp_path_factory.mktemp("s") / "s", script)

    class Run:
        def uses(self, name: str) -> bool:
            return {"momentum": False, "other": other}[name]

    def result(source: str) -> int:
        scope: dict[str, object] = {}
        definition = ast.Module([ast.parse(source).body[0]], [])
        exec(compile(definition, "main", "exec"), scope)
        return scope["main"](Run(), a, b)  # type: ignore[operator,no-any-return]

    assert "momentum" not in after
    assert result(after) == result(script)


def test_tables_are_cut_by_line() -> None:
    methods = '# of a\n[methods.a]  # here\nkind = "y"\n\n[methods.b]\nkind = "z"\n\n'
    text = f'task = "x"\n\n{methods}[hparams.c]\nof = "a"\nlow = 1\n'
    assert without_tables(text, ["methods.a"]) == 'task = "x"\n\n' + text[text.index("[methods.b]") :]
    assert 'of = "a"' not in without_owner(text, ["a"]) and 'of = "a"' in without_owner(text, ["b"])
    assert with_field(text, "parent", 'a "b"').startswith('task = "x"\n\n# of a\nparent = "a \\"b\\""\n\n[methods.a]')
    assert with_field(text, "task", "z").startswith('task = "z"\n')
