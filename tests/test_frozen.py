"""The core is frozen: a change of it needs an entry in frozen.toml."""

from __future__ import annotations

from pathlib import Path

from harness.evidence.records import load_record
from harness.frozen import core_digest, frozen_versions, outdated
from harness.paths import RECORDS


def test_the_core_is_the_one_that_frozen_toml_names() -> None:
    assert core_digest() == frozen_versions()[-1].core_digest, (
        f"harness/core changed: its digest is {core_digest()}. Add a [[versions]] entry to harness/frozen.toml "
        "(CONTRIBUTING, Frozen)"
    )


def test_versions_only_grow_and_compare_backwards() -> None:
    versions = frozen_versions()
    assert [version.measurement_version for version in versions] == list(range(1, len(versions) + 1))
    assert all(1 <= version.comparable_since <= version.measurement_version for version in versions)
    assert all(version.why for version in versions)


def test_what_an_older_version_measured_says_why_it_no_longer_compares(tmp_path: Path) -> None:
    table = tmp_path / "frozen.toml"
    since = {1: 1, 2: 1, 3: 3, 4: 3}
    table.write_text(
        "".join(
            f"[[versions]]\nmeasurement_version = {version}\ncomparable_since = {first}\n"
            f'core_digest = "{version:064d}"\nwhy = "Change {version}."\n'
            for version, first in since.items()
        )
    )
    told = outdated(1, table)
    assert told is not None and "version 1" in told and "since version 3." in told and told.endswith("Change 3.")
    assert outdated(2, table) == told.replace("version 1", "version 2")
    assert outdated(3, table) is None and outdated(4, table) is None


def test_the_version_of_every_filed_record_is_still_listed() -> None:
    """An entry with records is never pinned again: they were measured by the core that it names."""
    listed = {(version.measurement_version, version.core_digest) for version in frozen_versions()}
    for path in RECORDS.glob("*/*/[0-9]*/record.json"):
        record = load_record(path.parent)
        assert (record.measurement_version, record.core_digest) in listed, f"{record.id}: harness/frozen.toml lost it"


def test_any_change_of_a_source_file_changes_the_digest(tmp_path: Path) -> None:
    core = tmp_path / "core"
    (core / "data").mkdir(parents=True)
    (core / "clock.py").write_text("START = 1\n")
    digests = {core_digest(core)}
    (core / "data" / "new.py").write_text("")
    digests.add(core_digest(core))
    (core / "clock.py").write_text("START = 2\n")
    digests.add(core_digest(core))
    (tmp_path / "errors.py").write_text("# what the core imports counts too")
    assert len({*digests, core_digest(core)}) == 4


def test_line_ends_and_caches_do_not_change_the_digest(tmp_path: Path) -> None:
    (tmp_path / "clock.py").write_bytes(b"START = 1\n")
    before = core_digest(tmp_path)
    (tmp_path / "clock.py").write_bytes(b"START = 1\r\n")
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "clock.pyc").write_bytes(b"0")
    assert core_digest(tmp_path) == before
