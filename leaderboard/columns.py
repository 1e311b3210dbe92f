"""What every column of every frame means, in what unit, and its pandas type: `CONVENTIONS`, then frame by frame."""

from __future__ import annotations

from dataclasses import dataclass

TEXT = "str"
LIST = "object"  # a list of strings
REAL = "float64"
WHOLE = "Int64"
FLAG = "boolean"
DAY = "datetime64[s]"


CONVENTIONS = """\
A board is one (task, hardware class), `gcide/cpu-1thread`, or one track of an imported history, `nanogpt/1`. A record
is named `BOARD/NUMBER`, three digits. Losses are nats per token, times wall-clock seconds, ratios reference over
candidate: above 1 is faster. Intervals are one-sided at 99% on either side. What is not known is missing (NaN, NaT,
None), never zero."""


@dataclass(frozen=True)
class Column:
    """One column: its pandas type and what it holds."""

    dtype: str
    what: str

    @property
    def shown_type(self) -> str:
        """The type as people read it."""
        return "list of strings" if self.dtype == LIST else self.dtype


RECORDS = {
    "record": Column(TEXT, "name: BOARD/NUMBER; a re-timing of the public history has a letter after the number"),
    "board": Column(TEXT, "the (task, class) or imported track it stands on"),
    "number": Column(WHOLE, "number on its board"),
    "kind": Column(
        TEXT, "own: race, baseline; imported: record, result (valid, no record), software-upgrade, retiming"
    ),
    "date": Column(DAY, "day it was filed; imported: set, as stated"),
    "title": Column(TEXT, "what it is, in a line"),
    "authors": Column(LIST, "who is credited, as credited"),
    "score": Column(REAL, "what the board ranks: the unit is in score_unit"),
    "score_unit": Column(TEXT, "seconds or steps; fewer is better"),
    "speedup": Column(REAL, "over the board's first record; own records: product of the chain's race ratios"),
    "speedup_low": Column(REAL, "lower end of its 99% interval; missing where nothing was raced"),
    "speedup_high": Column(REAL, "upper end"),
    "parent": Column(TEXT, "the record it is measured against"),
    "ratio": Column(REAL, "time of the parent over its own at equal loss, as raced; own records"),
    "ratio_low": Column(REAL, "lower end of its 99% interval"),
    "ratio_high": Column(REAL, "upper end"),
    "ratio_tokens": Column(REAL, "its factor by fewer tokens to the target"),
    "ratio_speed": Column(REAL, "its factor by more tokens per second"),
    "target": Column(REAL, "the loss to reach, nats per token"),
    "steps": Column(WHOLE, "optimizer steps of the counted runs"),
    "tokens": Column(REAL, "training tokens of the counted runs, mean; own records"),
    "runs": Column(WHOLE, "counted runs: of the record's source, to its steps, repeats of one curve once"),
    "loss_mean": Column(REAL, "mean loss of the counted runs, nats per token"),
    "loss_std": Column(REAL, "sample standard deviation of their losses"),
    "p_value": Column(REAL, "one-sided t-test that their mean is below the target; missing for one run"),
    "holdout_gap": Column(REAL, "loss on the holdout split less loss on validation, of one run; decides nothing"),
    "runs_same_steps": Column(WHOLE, "runs in the record's folder to the same steps, whatever their source"),
    "p_same_steps": Column(REAL, "the same test over those"),
    "stated_runs": Column(WHOLE, "runs that its authors state, where they do"),
    "stated_loss": Column(REAL, "mean loss that its authors state, where they do"),
    "stated_pass": Column(FLAG, "whether the public table marks it as significant, where it says"),
    "time_mean": Column(REAL, "mean seconds of the counted runs on the linked log's kind and number of GPUs"),
    "time_std": Column(REAL, "standard deviation of those seconds"),
    "log_seconds": Column(REAL, "seconds of the log that the public table links to"),
    "log_minus_score": Column(REAL, "log_seconds less the stated seconds"),
    "log": Column(TEXT, "what that log is of: own, baseline's, older base, other machine, none"),
    "gpus": Column(WHOLE, "number of GPUs"),
    "machine": Column(TEXT, "GPU or CPU model"),
    "torch": Column(TEXT, "version of torch"),
    "source": Column(TEXT, "digest of the source that ran: sha256"),
    "core": Column(TEXT, "digest of the harness's core that measured it; own records"),
    "task_digest": Column(TEXT, "digest of the task; own records"),
    "data": Column(TEXT, "digest of the data; own records"),
    "chain": Column(TEXT, "hash of the last line of its runs, which holds all before it; own records"),
    "code_lines": Column(WHOLE, "lines of code without blanks, comments and docstrings"),
    "lines_added": Column(WHOLE, "such lines added over the record before; imported: all lines, as merged"),
    "lines_removed": Column(WHOLE, "lines removed"),
    "seconds_saved": Column(REAL, "seconds less than the record before, at equal loss; imported: as stated"),
    "merged": Column(DAY, "day it was merged into the public repository"),
    "trust": Column(TEXT, "trust level of its runs; imported: self-reported, not raced here"),
    "verified": Column(WHOLE, "isolated verifications, by anybody, that agree"),
    "reference": Column(TEXT, "where it is documented"),
    "note": Column(TEXT, "what else is known"),
}

RUNS = {
    "record": Column(TEXT, "the record whose evidence it is; missing where it belongs to none"),
    "board": Column(TEXT, "its board"),
    "run": Column(TEXT, "name of the run"),
    "arm": Column(TEXT, "candidate, or reference: a run of the parent in the same race; own records"),
    "pair": Column(WHOLE, "pair of runs it counts in, from 0; missing where it was done again; own records"),
    "counted": Column(FLAG, "whether it counts among the record's runs"),
    "loss": Column(REAL, "loss at the record's steps, else the last one, nats per token"),
    "seconds": Column(REAL, "seconds of training at that point"),
    "steps": Column(WHOLE, "steps at that point"),
    "tokens": Column(WHOLE, "training tokens; own records"),
    "status": Column(TEXT, "JUDGED, or the reason why it failed; own records"),
    "complete": Column(FLAG, "whether it went to its planned end"),
    "gpus": Column(WHOLE, "number of GPUs"),
    "machine": Column(TEXT, "GPU or CPU model"),
    "torch": Column(TEXT, "version of torch"),
    "driver": Column(TEXT, "version of the GPU's driver"),
    "source": Column(TEXT, "digest of the source that ran"),
    "curve": Column(TEXT, "digest of its losses: equal for copies of one run"),
    "duplicate_of": Column(TEXT, "the run of which it is an exact copy"),
    "folder": Column(TEXT, "folder of its log"),
    "file": Column(TEXT, "file of its log"),
}

CURVES = {
    "board": Column(TEXT, "its board"),
    "folder": Column(TEXT, "folder of its log: with file and run the key of a run"),
    "file": Column(TEXT, "file of its log"),
    "run": Column(TEXT, "name of the run"),
    "step": Column(WHOLE, "optimizer step"),
    "loss": Column(REAL, "validation loss, nats per token"),
    "seconds": Column(REAL, "seconds of training until then"),
    "tokens": Column(WHOLE, "training tokens until then, where known"),
    "variant": Column(TEXT, "what else the line says, such as the decay of averaged weights"),
}

METHODS = {
    "history": Column(TEXT, "the board its lifeline is on"),
    "method": Column(TEXT, "identifier"),
    "name": Column(TEXT, "what it is called"),
    "summary": Column(TEXT, "what it does, in a sentence; own records"),
    "source": Column(TEXT, "where it comes from; own records"),
    "kind": Column(TEXT, "optimizer, architecture, initialization, schedule, data, loss, precision, systems, software"),
    "introduced": Column(WHOLE, "number of the record that introduced it"),
    "introduced_on": Column(DAY, "day of that"),
    "dropped": Column(WHOLE, "number of the first record without it; missing while it stands"),
    "dropped_on": Column(DAY, "day of that"),
    "replaces": Column(LIST, "methods whose place it took"),
    "evidence": Column(TEXT, "where introduction and drop were read"),
    "uncertain": Column(FLAG, "whether the sources leave room"),
    "effect": Column(REAL, "time ratio of having it, or over what it replaced, where its record brought nothing else"),
    "effect_low": Column(REAL, "lower end of its 99% interval; missing where nothing was raced"),
    "effect_high": Column(REAL, "upper end"),
    "effect_by": Column(TEXT, "race: of that record against its parent; stated: seconds saved, as stated"),
    "seconds_saved": Column(REAL, "seconds that record saved; as in the frame of records"),
    "lines": Column(WHOLE, "lines that record added less those it removed"),
}

VERIFICATIONS = {
    "record": Column(TEXT, "the record that was raced again"),
    "date": Column(DAY, "day"),
    "machine": Column(TEXT, "GPU or CPU model"),
    "same_machine": Column(FLAG, "whether that is of the kind the record was set on"),
    "against": Column(TEXT, "the record it was raced against: its parent, or the first"),
    "trust": Column(TEXT, "trust levels of the runs"),
    "pairs": Column(WHOLE, "pairs of runs; runs, where the record is the first"),
    "verdict": Column(TEXT, "what this race alone says"),
    "target": Column(TEXT, "what these runs say about the target: shown again; not shown again; missed"),
    "agrees": Column(FLAG, "whether that agrees with what was filed; missing where nothing could be compared"),
    "confirms": Column(FLAG, "whether this race alone shows the record to be faster"),
    "p_agrees": Column(REAL, "two-sided, that filed and found ratio differ so by chance"),
    "filed_ratio": Column(REAL, "time ratio that the filed races of the chain give"),
    "ratio": Column(REAL, "time ratio at equal loss that was found"),
    "ratio_low": Column(REAL, "lower end of its 99% interval"),
    "ratio_high": Column(REAL, "upper end"),
}

ATTEMPTS = {
    "attempt": Column(TEXT, "name: BOARD/attempts/ID"),
    "board": Column(TEXT, "its board"),
    "date": Column(DAY, "day it was planned"),
    "methods_added": Column(LIST, "methods that are on in it and not in the reference"),
    "methods_dropped": Column(LIST, "methods that are on in the reference and not in it"),
    "title": Column(TEXT, "what was tried"),
    "reference": Column(TEXT, "the record it was raced against"),
    "verdict": Column(
        TEXT,
        "record; valid, not proven faster; slower; misses target; invalid; not decided yet; of comparisons: faster",
    ),
    "reason": Column(TEXT, "why that verdict"),
    "record": Column(TEXT, "the record it was filed as"),
    "ratio": Column(REAL, "time ratio at equal loss"),
    "ratio_low": Column(REAL, "lower end of its 99% interval"),
    "ratio_high": Column(REAL, "upper end"),
    "pairs": Column(WHOLE, "pairs of runs; runs, where there was no record to race against"),
    "failed": Column(WHOLE, "its runs that failed"),
    "loss_mean": Column(REAL, "mean loss of its runs, nats per token"),
    "seconds": Column(REAL, "mean seconds of its runs"),
}

ABLATIONS = {
    "ablation": Column(TEXT, "name: RECORD/ablations/ID"),
    "record": Column(TEXT, "the record that was raced without some of its methods"),
    "board": Column(TEXT, "its board"),
    "date": Column(DAY, "day"),
    "machine": Column(TEXT, "GPU or CPU model"),
    "methods": Column(LIST, "what was dropped"),
    "word": Column(TEXT, "needed, unproven or harmful"),
    "reason": Column(TEXT, "what that rests on where it is no ratio"),
    "ratio": Column(REAL, "time without the methods over time with them at equal loss: above 1 they help"),
    "ratio_low": Column(REAL, "lower end of its 99% interval"),
    "ratio_high": Column(REAL, "upper end"),
    "ratio_tokens": Column(REAL, "its factor by fewer tokens to the target"),
    "ratio_speed": Column(REAL, "its factor by more tokens per second"),
    "pairs": Column(WHOLE, "pairs of runs raced"),
    "seconds_saved": Column(REAL, "seconds that the methods save of a run of the record, at equal loss"),
    "seconds_saved_low": Column(REAL, "lower end of its 99% interval"),
    "seconds_saved_high": Column(REAL, "upper end"),
    "lines": Column(WHOLE, "statements that run only with them"),
    "shared_lines": Column(WHOLE, "statements that another method needs too"),
    "saved_per_line": Column(REAL, "seconds saved over lines; missing where there are no lines"),
    "memory": Column(REAL, "bytes more at the peak of a short run"),
}

FRAMES = {
    "records": RECORDS, "runs": RUNS, "curves": CURVES,
    "methods": METHODS, "verifications": VERIFICATIONS, "attempts": ATTEMPTS,
    "ablations": ABLATIONS,
}  # fmt: skip
