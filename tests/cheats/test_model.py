"""Cheats of the model, when it is evaluated: what it may know, what it answers, when it learns."""

from __future__ import annotations

import math

import pytest
import torch

from tests.cheats.conftest import Cheats, Ran, plain_loss
from tests.conftest import Toy

NATS = 0.02  # what counts as a gain; the honest table is at 1.6


@pytest.mark.parametrize(
    ("name", "steps"),
    [
        ("reads_suffix", 30),
        ("caches_ngrams_with_the_target", 30),
        ("fits_a_vector_to_each_window", 30),
        ("picks_the_better_of_two_checkpoints", 30),
        ("reads_batch_mates", 5),  # learning in evaluation takes the place of training
        ("remembers_across_batches", 5),
        ("trains_in_first_forward", 5),
    ],
)
def test_without_the_audit_it_would_pay(toy: Toy, name: str, steps: int) -> None:
    assert plain_loss(toy, name, steps) < plain_loss(toy, "honest_bigram", steps) - NATS


def test_reading_ahead_fails_the_audit(cheat: Cheats) -> None:
    assert "reads ahead in the row" in cheat.run("reads_suffix").outcome.message


def test_a_cache_keyed_with_the_target_fails_the_audit(cheat: Cheats) -> None:
    assert "reads ahead in the row" in cheat.run("caches_ngrams_with_the_target").outcome.message


def test_looking_at_the_other_rows_fails_the_audit(cheat: Cheats) -> None:
    assert "looks at the other rows" in cheat.run("reads_batch_mates").outcome.message


def test_remembering_earlier_batches_fails_the_audit(cheat: Cheats) -> None:
    assert "remembers earlier batches" in cheat.run("remembers_across_batches").outcome.message


def test_training_while_it_is_judged_fails_the_audit(cheat: Cheats) -> None:
    assert "rows moved" in cheat.run("trains_in_first_forward").outcome.message


def test_fitting_the_window_that_is_scored_fails_the_audit(cheat: Cheats) -> None:
    assert "reads ahead in the row" in cheat.run("fits_a_vector_to_each_window").outcome.message


def test_choosing_a_checkpoint_by_the_loss_fails_the_audit(cheat: Cheats) -> None:
    assert "reads ahead in the row" in cheat.run("picks_the_better_of_two_checkpoints").outcome.message


def test_honesty_only_where_somebody_looks_fails_the_audit(cheat: Cheats) -> None:
    assert "rows moved" in cheat.run("behaves_while_it_is_audited").outcome.message


def test_what_one_host_tells_the_other_by_locks_does_not_arrive(cheat: Cheats) -> None:
    assert "reads ahead in the row" in cheat.run("tells_its_shadow_through_file_locks").outcome.message


def test_a_note_on_the_weights_does_not_arrive_at_the_other_host(cheat: Cheats) -> None:
    assert "reads ahead in the row" in cheat.run("tells_its_shadow_through_the_weights").outcome.message


def test_another_alphabet_is_not_scored(cheat: Cheats) -> None:
    assert "the logits have 32 columns" in cheat.run("answers_on_a_smaller_alphabet").outcome.message


def test_a_part_of_the_positions_is_not_scored(cheat: Cheats) -> None:
    assert "for tokens [8, 32]" in cheat.run("answers_only_easy_positions").outcome.message


def test_an_answer_stands_as_it_was_first_given(cheat: Cheats, honest_loss: float) -> None:
    ran = cheat.run("rewrites_its_answers")
    assert "rewritten" in (ran.folder / "host.txt").read_text()
    assert ran.loss == honest_loss


def test_every_token_is_scored_once(toy: Toy, honest: Ran) -> None:
    assert honest.outcome.judgement is not None
    assert honest.outcome.judgement["tokens"] == toy.task.of_split("validation")[0].tokens - 1


def test_looking_back_is_honest(cheat: Cheats, honest_loss: float) -> None:
    ran = cheat.run("honest_memory_of_the_past")
    assert ran.outcome.judgement is not None
    assert ran.outcome.judgement["audit"]["largest_difference"] <= ran.outcome.judgement["audit"]["tolerance"]
    assert ran.loss < honest_loss + 0.5


def test_unnormalized_probabilities_gain_nothing(toy: Toy, cheat: Cheats, honest_loss: float) -> None:
    def as_they_are(answer: torch.Tensor, targets: torch.Tensor) -> float:
        return -answer.gather(1, targets[:, None]).mean().item()

    assert plain_loss(toy, "returns_unnormalized_probabilities", score=as_they_are) < 0
    assert cheat.run("returns_unnormalized_probabilities").loss == pytest.approx(honest_loss, abs=1e-4)


def test_a_printed_score_is_not_read(cheat: Cheats, honest_loss: float) -> None:
    ran = cheat.run("prints_fake_score")
    assert ran.loss == honest_loss
    assert "val_loss:0.01" in ran.printed
    assert ran.rows[-1]["val_loss"] == 0.01


def test_bits_per_byte_come_from_the_bytes_of_the_task(toy: Toy, honest: Ran) -> None:
    judgement = honest.outcome.judgement
    assert judgement is not None
    text_bytes = toy.task.of_split("validation")[0].text_bytes
    bits = judgement["val_loss"] * judgement["tokens"] / math.log(2)
    assert judgement["bits_per_byte"] * text_bytes == pytest.approx(bits)
