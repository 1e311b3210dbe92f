"""What Optuna proposes: quasi-random scouts, and the search, a multivariate TPE sampler that starts from the scouts.

Proposals of the search are kept by Optuna's JournalStorage, so that one that was interrupted is run, not forgotten.
What a finished trial gave is kept in trials.csv, from which a lost storage is filled again.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator
from pathlib import Path

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import QMCSampler, TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState, create_trial

from harness.errors import UserError
from harness.submission import Value
from harness.tuning.design import Design, best
from harness.tuning.protocol import Knob, SearchStage, rounded
from harness.tuning.trials import Job, Trial, TrialTable

NUMBER = "number"  # the attribute that ties a trial of Optuna to a row of trials.csv
RANDOM_DRAWS = 2  # of a search, beside its starts and scouts
MOST_STARTUP_TRIALS = 10  # Optuna's own default


def scouts(design: Design) -> list[Job]:
    """The scouts of a protocol: scrambled Sobol points, the same every time."""
    stage = design.protocol.stages.scout
    if stage is None:
        return []
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space = Space(design, stage.knobs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)  # that its interface may change; the lock pins it
        sampler = QMCSampler(scramble=True, seed=design.protocol.seed % 2**32)
    study = optuna.create_study(sampler=sampler)
    study.tell(study.ask(space.distributions), 0.0)  # the first is drawn at random, to learn the space
    seed = design.seeds("search", 1)[0]
    jobs = []
    for number in range(stage.trials):
        trial = study.ask(space.distributions)
        jobs.append(Job("scout", number, seed, design.point(space.values(trial.params), stage.budget)))
        study.tell(trial, 0.0)
    return jobs


class Space:
    """The box that is searched: Optuna's parameters from values of the knobs and back."""

    def __init__(self, design: Design, names: list[str]) -> None:
        self.knobs = {name: design.protocol.knobs[name] for name in names}
        self._whole = {name: isinstance(design.declared[name], int) for name in names}
        self.distributions = {name: self._distribution(name, knob) for name, knob in self.knobs.items()}

    def values(self, parameters: dict[str, float]) -> dict[str, Value]:
        """Values of the hyperparameters, rounded, inside the box."""
        return {name: self._value(name, parameter) for name, parameter in parameters.items()}

    def parameters(self, hparams: dict[str, Value]) -> dict[str, Value] | None:
        """Optuna's parameters for a point; None where it lies outside of the box."""
        found: dict[str, Value] = {}
        for name, knob in self.knobs.items():
            value = hparams[name]
            if knob.values is None and knob.scale == "complement":
                value = 1 - float(value)
            if not self._inside(name, value):
                return None
            found[name] = value
        return found

    def _value(self, name: str, parameter: float) -> Value:
        knob = self.knobs[name]
        if knob.values is not None or self._whole[name]:
            return parameter
        assert knob.low is not None and knob.high is not None  # the protocol was checked
        value = rounded(parameter, complement=knob.scale == "complement")
        return min(max(value, knob.low), knob.high)  # rounding may lead out of the box, and of the declared range

    def _inside(self, name: str, value: Value) -> bool:
        knob = self.knobs[name]
        if knob.values is not None:
            return value in knob.values
        distribution = self.distributions[name]
        assert isinstance(distribution, FloatDistribution | IntDistribution)
        return distribution.low <= float(value) <= distribution.high

    def _distribution(self, name: str, knob: Knob) -> BaseDistribution:
        if knob.values is not None:
            return CategoricalDistribution(knob.values)
        assert knob.low is not None and knob.high is not None  # the protocol was checked
        if self._whole[name]:
            return IntDistribution(round(knob.low), round(knob.high), log=knob.scale == "log")
        if knob.scale == "complement":
            return FloatDistribution(1 - knob.high, 1 - knob.low, log=True)
        return FloatDistribution(knob.low, knob.high, log=knob.scale == "log")


class Search:
    """The search as a stream of jobs: asks when one is wanted, is told what came of each."""

    def __init__(self, design: Design, stage: SearchStage, table: TrialTable, storage: Path) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._design, self._stage, self._table = design, stage, table
        self._space = Space(design, stage.knobs)
        self._seed = design.seeds("search", 1)[0]
        self._open: dict[int, FrozenTrial | optuna.Trial] = {}
        try:
            self._study = self._load(storage)
        except (ValueError, KeyError, TypeError) as error:  # what Optuna raises on a file that a crash cut short
            message = f"{storage}: not a journal of Optuna: {error}"
            raise UserError(message, "remove it: only proposals that were not finished are lost") from None

    def jobs(self) -> Iterator[Job]:
        """The trials that are left, each proposed at the moment it is asked for."""
        left = set(range(self._stage.trials)) - {trial.job.number for trial in self._table.of_stage("search")}
        for trial in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            number = trial.user_attrs.get(NUMBER)
            if number in left:  # proposed before, and interrupted
                left.remove(number)
                self._open[number] = trial
                yield self._job(number, trial.params)
        for number in sorted(left):
            proposed = self._study.ask(self._space.distributions)
            proposed.set_user_attr(NUMBER, number)
            self._open[number] = proposed
            yield self._job(number, proposed.params)

    def tell(self, trial: Trial) -> None:
        """Hands Optuna the result of a job."""
        _tell(self._study, self._open.pop(trial.job.number).number, trial)

    def _job(self, number: int, parameters: dict[str, float]) -> Job:
        return Job("search", number, self._seed, self._design.point(self._space.values(parameters)))

    def _load(self, storage: Path) -> optuna.Study:
        """The study of this source and box: continued, or filled with the trials of trials.csv and the starts.

        What it knows beyond trials.csv it has from a table that was moved aside or edited: then it begins anew.
        """
        storage.parent.mkdir(parents=True, exist_ok=True)
        parts = (self._table.source, sorted(self._space.distributions.items()))
        name = hashlib.sha256(repr(parts).encode()).hexdigest()[:12]
        finished = self._table.of_stage("search")
        journal, sampler = JournalStorage(JournalFileBackend(str(storage))), self._sampler(len(finished))
        study = optuna.create_study(study_name=name, storage=journal, sampler=sampler, load_if_exists=True)
        if not _results(study) <= {(trial.job.number, trial.val_loss) for trial in finished}:
            optuna.delete_study(study_name=name, storage=journal)
            study = optuna.create_study(study_name=name, storage=journal, sampler=sampler)
        known = {trial.user_attrs.get(NUMBER): trial for trial in study.get_trials(deepcopy=False)}
        for trial in finished:
            proposed = known.get(trial.job.number)
            if proposed is None:
                self._enter(study, trial)
            elif not proposed.state.is_finished():
                _tell(study, proposed.number, trial)
        for point in self._starts():
            study.enqueue_trial(point, skip_if_exists=True)
        return study

    def _sampler(self, finished: int) -> TPESampler:
        """The sampler of a search that goes on after so many trials.

        One that began anew with the seed of the first one would propose the same random points again. Until there are
        points to learn from it draws at random: the starts and scouts are such points, two draws beside them will do.
        """
        points = len(self._stage.starts) + self._stage.from_scouts + RANDOM_DRAWS
        return TPESampler(
            multivariate=True, constant_liar=True, n_startup_trials=min(MOST_STARTUP_TRIALS, points),
            seed=(self._design.protocol.seed + finished) % 2**32,
        )  # fmt: skip

    def _enter(self, study: optuna.Study, trial: Trial) -> None:
        parameters = self._space.parameters(trial.job.hparams)
        if parameters is not None:
            study.add_trial(
                create_trial(
                    state=TrialState.PRUNED if trial.val_loss is None else TrialState.COMPLETE,
                    value=trial.val_loss,
                    params=parameters,
                    distributions=self._space.distributions,
                    user_attrs={NUMBER: trial.job.number},
                )
            )

    def _starts(self) -> list[dict[str, Value]]:
        """Where the search begins: the given points, then the best scouts."""
        scouted = [trial.job.hparams for trial in best(self._table.of_stage("scout"), self._stage.from_scouts)]
        points = [self._space.parameters(point) for point in [*self._stage.starts, *scouted]]
        return [point for point in points if point is not None]


def _results(study: optuna.Study) -> set[tuple[int, float | None]]:
    """The numbers of a study's finished trials with their losses, None for one that failed."""
    ended = (TrialState.COMPLETE, TrialState.PRUNED)
    return {(trial.user_attrs[NUMBER], trial.value) for trial in study.get_trials(deepcopy=False, states=ended)}


def _tell(study: optuna.Study, number: int, trial: Trial) -> None:
    """A failed trial is told as pruned, which the sampler takes for worse than any loss."""
    if trial.val_loss is None:
        study.tell(number, state=TrialState.PRUNED)
    else:
        study.tell(number, trial.val_loss)
