"""What a submission folder may hold, and errors that name the file and the field."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.errors import UserError
from harness.submission import Submission, folder_digest, load_submission
from tests.conftest import Toy
from tests.toy_submission import MANIFEST, SCRIPT, write_submission


def load(toy: Toy, folder: Path, manifest: str = MANIFEST) -> Submission:
    return load_submission(write_submission(folder / "bigram", manifest=manifest), toy.task)


def test_defaults_and_settings(toy: Toy, tmp_path: Path) -> None:
    submission = load(toy, tmp_path)
    assert submission.hparams(["steps=5", "lr=0.5"]) == {"steps": 5, "lr": 0.5}
    assert submission.hparams([]) == {"steps": 30, "lr": 50.0}
    assert submission.methods([]) == {"momentum": True}
    assert submission.methods(["momentum"]) == {"momentum": False}


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("stepz=5", r"no \[hparams.stepz\]"),
        ("steps", "no value"),
        ("steps=five", "not a int"),
        ("steps=5.5", "not a int"),
        ("steps=100000", "outside"),
        ("lr=nan", "outside"),
    ],
)
def test_a_bad_setting_is_named(toy: Toy, tmp_path: Path, setting: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        load(toy, tmp_path).hparams([setting])


def test_an_unknown_method_lists_the_declared_ones(toy: Toy, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="momentum"):
        load(toy, tmp_path).methods(["muon"])


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("title", "titel", "titel"),
        ('kind = "optimizer"', 'kind = "magic"', "methods.momentum.kind"),
        ("default = 30", "default = 3000", "hparams.steps"),
        ("low = 0.1", "low = -1", "log range"),
        ('of = "momentum"', 'of = "muon"', "not a declared method"),
        ("length = 32", "length = 129", "evaluation.length"),
        ("batch = 8", "batch = 800", "evaluation.batch x evaluation.length"),
        ('task = "toy"', "task = [", "not valid TOML"),
        ("[methods.momentum]", "[methods.Momentum]", "methods.Momentum"),
    ],
)
def test_a_bad_manifest_names_the_field(toy: Toy, tmp_path: Path, old: str, new: str, said: str) -> None:
    assert old in MANIFEST
    with pytest.raises(UserError, match=said) as caught:
        load(toy, tmp_path, MANIFEST.replace(old, new))
    assert "submission.toml" in str(caught.value)
    assert caught.value.remedy


def test_links_out_of_the_folder_are_refused(toy: Toy, tmp_path: Path) -> None:
    folder = write_submission(tmp_path / "bigram")
    (folder / "stolen.py").symlink_to("/etc/passwd")
    with pytest.raises(UserError, match="not a regular file"):
        load_submission(folder, toy.task)


def test_linked_folders_are_refused(toy: Toy, tmp_path: Path) -> None:
    folder = write_submission(tmp_path / "bigram")
    (folder / "lib").symlink_to("/etc", target_is_directory=True)
    with pytest.raises(UserError, match="not a regular file"):
        load_submission(folder, toy.task)


def test_binary_files_are_refused(toy: Toy, tmp_path: Path) -> None:
    folder = write_submission(tmp_path / "bigram")
    (folder / "weights.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(UserError, match="weights.npy"):
        load_submission(folder, toy.task)


def test_size_is_checked_before_reading(toy: Toy, tmp_path: Path) -> None:
    folder = write_submission(tmp_path / "bigram")
    with (folder / "big.py").open("wb") as file:
        file.truncate(1 << 40)  # sparse: reading it would not end
    with pytest.raises(UserError, match="65,536 bytes"):
        load_submission(folder, toy.task)


def test_huge_manifest_is_refused_before_reading(toy: Toy, tmp_path: Path) -> None:
    folder = write_submission(tmp_path / "bigram")
    with (folder / "submission.toml").open("ab") as file:
        file.truncate(1 << 40)
    with pytest.raises(UserError, match="larger than"):
        load_submission(folder, toy.task)


def test_deep_toml_is_an_error_not_a_crash(toy: Toy, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="submission.toml"):
        load(toy, tmp_path, "x = " + "[" * 30_000)


def test_digest_ignores_line_ends_caches_and_modes(toy: Toy, tmp_path: Path) -> None:
    plain = load(toy, tmp_path)
    other = write_submission(tmp_path / "other")
    (other / "train.py").write_bytes(SCRIPT.replace("\n", "\r\n").encode())
    (other / "train.py").chmod(0o755)
    (other / "__pycache__").mkdir()
    (other / "__pycache__" / "train.pyc").write_bytes(b"\x00")
    (other / ".DS_Store").write_bytes(b"\x00")
    assert load_submission(other, toy.task).digest == plain.digest


@given(st.dictionaries(st.text(min_size=1), st.binary(), min_size=1), st.data())
def test_any_change_of_name_or_content_changes_the_digest(files: dict[str, bytes], data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(files)))
    changed = {**files, name: files[name] + b"x"}
    renamed = {(key + "x" if key == name else key): value for key, value in files.items()}
    assert folder_digest(files) != folder_digest(changed)
    if name + "x" not in files:
        assert folder_digest(files) != folder_digest(renamed)


def test_snapshot_is_what_was_digested(toy: Toy, tmp_path: Path) -> None:
    submission = load(toy, tmp_path)
    submission.snapshot(tmp_path / "copy")
    assert load_submission(tmp_path / "copy", toy.task).digest == submission.digest


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=400) | st.text(alphabet='[]{}="abc1.\n#', max_size=200).map(str.encode))
def test_no_manifest_makes_a_traceback(toy: Toy, tmp_path: Path, content: bytes) -> None:
    folder = tmp_path / "fuzzed"
    folder.mkdir(exist_ok=True)
    (folder / "train.py").write_text(SCRIPT)
    (folder / "submission.toml").write_bytes(content)
    with pytest.raises(UserError):
        load_submission(folder, toy.task)


@pytest.mark.parametrize("task", ["evil.toml", "../../evil", "/tmp/evil.toml", "nothing"])
def test_a_submission_cannot_bring_its_own_task(toy: Toy, tmp_path: Path, task: str) -> None:
    folder = write_submission(tmp_path / "bigram", manifest=MANIFEST.replace('task = "toy"', f'task = "{task}"'))
    (folder / "evil.toml").write_bytes(toy.task.path.read_bytes())
    with pytest.raises(UserError):
        load_submission(folder)


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("x = '" + "y" * 3000 + "'\n", "a line of 3,0"),
        ("x = [" + "1,\n" * 600 + "]\n", "more than 512 numeric literals"),
        ("def (:\n", "not valid Python"),
    ],
)
def test_packed_or_broken_source_is_refused(toy: Toy, tmp_path: Path, script: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        load_submission(write_submission(tmp_path / "bigram", script), toy.task)
