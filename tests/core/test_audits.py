"""The audit on toy models in numpy: every way to depend on more than the own past fails, honest ways pass."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from harness.core.audits import AuditReport, ShadowAudit
from harness.core.failures import Failure, RunFailed
from harness.core.scoring import SLOTS, Windows, score
from harness.core.slots import Slots, sealed_memory, slot_bytes
from harness.core.task import Audit
from tests.conftest import markov_tokens

COLUMNS, BATCH, LENGTH = 64, 8, 32
RULES = Audit(share=0.1, rows=32, tolerance={"cpu": 1e-3}, nats_gained=0.0005)
TOKENS = markov_tokens(20_000, seed=9)
TABLE = np.random.default_rng(5).normal(size=(COLUMNS, COLUMNS)).astype(np.float32)

Model = Callable[[np.ndarray], np.ndarray]


class Host:
    """Answers with a function of tokens [B, T] to logits [B, T, V]."""

    def __init__(self, model: Model, slots: Slots) -> None:
        self._model, self._slots = model, slots

    def forward(self, slot: int) -> None:
        self._slots.logits[slot][:] = self._model(self._slots.tokens[slot].copy())

    def wait(self, slot: int) -> None:
        pass


def make_slots(count: int, batch: int) -> Slots:
    descriptor = sealed_memory(count * slot_bytes(batch, LENGTH, COLUMNS))
    return Slots(descriptor, count, batch, LENGTH, COLUMNS)


def audited(make_model: Callable[[], Model], seed: int = 1, batch: int = BATCH) -> AuditReport:
    """Each host builds its own model, as each process does."""
    windows = Windows(TOKENS, batch, LENGTH, COLUMNS - 1)
    slots, shadow_slots = make_slots(SLOTS, batch), make_slots(1, batch)
    audit = ShadowAudit(RULES, RULES.tolerance["cpu"], Host(make_model(), shadow_slots), shadow_slots, windows, seed)
    score(Host(make_model(), slots), slots, windows, audit.order, audit)
    return audit.conclude()


def failure(make_model: Callable[[], Model], **settings: int) -> str:
    with pytest.raises(RunFailed) as caught:
        audited(make_model, **settings)
    assert caught.value.reason is Failure.AUDIT
    return caught.value.message


def bigram(tokens: np.ndarray) -> np.ndarray:
    return TABLE[tokens]


def right_answer(tokens: np.ndarray, strength: float) -> np.ndarray:
    """A bigram that adds to the logit of what really comes next in the row."""
    logits = TABLE[tokens].copy()
    np.put_along_axis(
        logits[:, :-1], tokens[:, 1:, None], np.take_along_axis(logits[:, :-1], tokens[:, 1:, None], 2) + strength, 2
    )
    return logits


@pytest.mark.parametrize("batch", [1, 3, 8, 64])
def test_a_causal_model_passes(batch: int) -> None:
    report = audited(lambda: bigram, batch=batch)
    assert report.largest_difference == 0
    assert report.rows >= 0.1 * 20_000 / LENGTH * 0.5
    assert report.unstable_rows == 0


def test_a_model_of_the_whole_past_passes() -> None:
    def average(tokens: np.ndarray) -> np.ndarray:
        return np.cumsum(TABLE[tokens], axis=1) / np.arange(1, LENGTH + 1)[:, None]

    assert audited(lambda: average).largest_difference == 0


def test_a_cache_of_answers_passes() -> None:
    def caching() -> Model:
        known: dict[bytes, np.ndarray] = {}
        return lambda tokens: np.stack([known.setdefault(row.tobytes(), TABLE[row]) for row in tokens])

    assert audited(caching).largest_difference == 0


def test_rounding_passes() -> None:
    def rough() -> Model:
        random = np.random.default_rng()
        return lambda tokens: TABLE[tokens] + 1e-4 * random.random((*tokens.shape, COLUMNS), np.float32)

    report = audited(rough)
    assert 0 < report.largest_difference < 1e-3


def test_masked_columns_pass() -> None:
    masked = TABLE.copy()
    masked[:, 62] = -np.inf
    assert audited(lambda: lambda tokens: masked[tokens]).largest_difference == 0


def test_rare_ties_of_a_router_pass() -> None:
    def routed(tokens: np.ndarray) -> np.ndarray:
        """Where a hash of the past says so, which of two answers comes depends on the rounding of the whole batch."""
        logits = TABLE[tokens].copy()
        ties = np.cumsum(tokens, axis=1) % 3011 == 0
        logits[ties] += np.float32(tokens.sum() % 2)
        return logits

    reports = [audited(lambda: routed, seed=seed) for seed in range(20)]
    assert any(report.unstable_rows for report in reports)


@pytest.mark.parametrize("strength", [5.0, 0.01])
def test_reading_one_token_ahead_is_found(strength: float) -> None:
    assert "reads ahead in the row" in failure(lambda: lambda tokens: right_answer(tokens, strength))


def test_reading_ahead_is_named_where_other_text_often_says_the_same() -> None:
    def parity_ahead(tokens: np.ndarray) -> np.ndarray:
        return TABLE[tokens] + np.roll(tokens, -1, axis=1)[..., None] % 2

    for seed in range(20):
        assert "reads ahead in the row" in failure(lambda: parity_ahead, seed=seed)


def test_reading_ahead_below_the_tolerance_is_found_by_what_it_gains() -> None:
    assert "nats a token" in failure(lambda: lambda tokens: right_answer(tokens, 0.9e-3))


def test_reading_far_ahead_is_found() -> None:
    def suffix_mean(tokens: np.ndarray) -> np.ndarray:
        return TABLE[tokens] + tokens[:, -1:, None] / COLUMNS

    assert "reads ahead in the row" in failure(lambda: suffix_mean)


def test_looking_at_batch_mates_is_found() -> None:
    def shared(tokens: np.ndarray) -> np.ndarray:
        return TABLE[tokens] + TABLE[tokens].mean(axis=0)

    assert "looks at the other rows" in failure(lambda: shared)


def test_looking_only_for_what_follows_the_last_position_is_found() -> None:
    """Rows follow each other in the text: the first token of a row is the answer to the last position before it."""

    def next_row(tokens: np.ndarray) -> np.ndarray:
        logits = TABLE[tokens].copy()
        logits[np.arange(len(tokens) - 1), -1, tokens[1:, 0]] += 5
        return logits

    for seed in range(5):
        assert "rows moved" in failure(lambda: next_row, seed=seed)


def test_reading_ahead_only_in_the_padded_batch_is_found() -> None:
    def padded(tokens: np.ndarray) -> np.ndarray:
        return right_answer(tokens, 5.0) if (tokens[-1] == COLUMNS - 1).all() else TABLE[tokens]

    windows = Windows(TOKENS, 128, LENGTH, COLUMNS - 1)
    assert windows.scored % (128 * LENGTH) > 0.8 * 128 * LENGTH
    for seed in range(5):
        assert "rows moved" in failure(lambda: padded, seed=seed, batch=128)


def test_reading_ahead_in_one_batch_of_many_is_found() -> None:
    """Whole batches drawn one in ten would miss it nine times in ten."""

    def one_batch(tokens: np.ndarray) -> np.ndarray:
        return right_answer(tokens, 5.0) if (tokens[:, :4] == target).all(axis=1).any() else TABLE[tokens]

    target = TOKENS[5 * 64 * LENGTH : 5 * 64 * LENGTH + 4]  # how a row of batch 5 begins; chance has it elsewhere
    for seed in range(5):
        assert "rows moved" in failure(lambda: one_batch, seed=seed, batch=64)


def test_depending_on_the_place_in_the_batch_is_found() -> None:
    def placed(tokens: np.ndarray) -> np.ndarray:
        return TABLE[tokens] * np.arange(1, len(tokens) + 1, dtype=np.float32)[:, None, None]

    # Asked again at its own place, a row answers as before: the place alone gains nothing.
    assert "depends on the order of the rows" in failure(lambda: placed)


def test_remembering_earlier_batches_is_found() -> None:
    def remembering() -> Model:
        seen = np.zeros((COLUMNS, COLUMNS), np.float32)

        def answer(tokens: np.ndarray) -> np.ndarray:
            logits = TABLE[tokens] + np.log1p(seen)[tokens]
            np.add.at(seen, (tokens[:, :-1], tokens[:, 1:]), 1)
            return logits

        return answer

    assert "remembers earlier batches" in failure(remembering)


def test_counting_calls_is_found() -> None:
    def counting() -> Model:
        calls = iter(range(10**6))
        return lambda tokens: TABLE[tokens] + 0.01 * next(calls)

    assert "remembers earlier batches" in failure(counting)


def test_answers_by_chance_are_found() -> None:
    def noisy() -> Model:
        random = np.random.default_rng()
        return lambda tokens: TABLE[tokens] + random.random((*tokens.shape, COLUMNS), np.float32)

    assert "remembers earlier batches or draws" in failure(noisy)


def test_another_model_in_the_second_process_is_found() -> None:
    models = iter([bigram, lambda tokens: TABLE[tokens] + 1])
    assert "rows moved" in failure(lambda: next(models))


def test_rare_reading_ahead_is_found_over_a_few_runs() -> None:
    def rare(tokens: np.ndarray) -> np.ndarray:
        """Reads ahead where a hash of the past says so: at one position in fifty."""
        honest, cheating = TABLE[tokens], right_answer(tokens, 3.0)
        return np.where((np.cumsum(tokens, axis=1) % 50 == 0)[..., None], cheating, honest)

    found = 0
    for seed in range(20):
        try:
            audited(lambda: rare, seed=seed)
        except RunFailed:
            found += 1
    assert found >= 6


def test_a_one_bit_hint_of_what_follows_is_found() -> None:
    def hint(tokens: np.ndarray) -> np.ndarray:
        logits = TABLE[tokens].copy()
        logits[:, :-1, :32] += (tokens[:, 1:, None] < 32) * np.float32(2)
        return logits

    assert "reads ahead in the row" in failure(lambda: hint)


def test_the_audit_asks_for_batches_nobody_can_foresee() -> None:
    windows = Windows(TOKENS, BATCH, LENGTH, COLUMNS - 1)
    slots = make_slots(1, BATCH)
    audits = [ShadowAudit(RULES, 1e-3, Host(bigram, slots), slots, windows, seed) for seed in range(2)]
    assert audits[0].chosen != audits[1].chosen
    assert audits[0].order != audits[1].order
    assert sorted(audits[0].order) == list(range(windows.batches))


def test_the_host_cannot_show_the_audit_other_logits() -> None:
    """A host that overwrites its answer once somebody looks at it moves no score, in an audited batch or another."""
    windows = Windows(TOKENS, BATCH, LENGTH, COLUMNS - 1)
    slots = make_slots(SLOTS, BATCH)
    seen: list[np.ndarray] = []

    class Spy:
        def wants(self, index: int) -> bool:
            slots.logits[index % SLOTS][:] = np.nan
            return index % 2 == 0

        def take(self, index: int, logits: np.ndarray) -> None:
            seen.append(logits)

    honest = score(Host(bigram, slots), slots, windows, range(windows.batches))
    assert score(Host(bigram, slots), slots, windows, range(windows.batches), Spy()) == honest
    assert len(seen) == (windows.batches + 1) // 2
    assert all(np.isfinite(logits).all() for logits in seen)
