"""Cheats that stand in the folder itself: what `speedrun check` sees before anything runs, or by building the model."""

from __future__ import annotations

from itertools import islice

from harness.checks.check import Checker
from harness.checks.rules import RULES
from tests.cheats.conftest import FOLDER, Cheats
from tests.conftest import Toy


def test_a_table_of_numbers_is_over_the_cap_of_literals(cheat: Cheats) -> None:
    assert "more than 512 numeric literals" in cheat.check("literal_bigram_table").failures[0].message


def test_weights_in_a_string_look_packed(cheat: Cheats) -> None:
    assert "train.py, strings" in cheat.check("packed_weights").failures[0].message


def test_validation_text_in_a_string_looks_packed(cheat: Cheats) -> None:
    assert "train.py, strings" in cheat.check("carries_validation_text").failures[0].message


def test_a_program_in_a_string_is_seen_by_what_unpacks_it(cheat: Cheats, toy: Toy) -> None:
    found = {result.rule.id for result in Checker(FOLDER / "packs_its_source", toy.task, "cpu-1thread").results()
             if result.failures}  # fmt: skip
    assert {"packed-data", "no-dynamic-code"} <= found
    assert cheat.check("packs_its_source").failures


def test_a_library_that_only_its_author_has_is_refused(cheat: Cheats) -> None:
    assert any("faster_kernels" in finding.message for finding in cheat.check("brings_a_private_library").failures)


def test_a_data_file_is_refused(cheat: Cheats) -> None:
    assert "prepared.npy" in cheat.check("brings_its_own_data").failures[0].message


def test_a_chosen_seed_gives_the_same_weights_twice(cheat: Cheats) -> None:
    assert "two seeds give the same weights" in cheat.check("chooses_its_seed").failures[0].message


def test_honest_notes_and_tables_pass(toy: Toy) -> None:
    results = Checker(FOLDER / "honest_notes_and_tables", toy.task, "cpu-1thread").results()
    in_source = sum(rule.stage in ("files", "source") for rule in RULES)
    assert [result.failures for result in islice(results, in_source)] == [[]] * in_source
