"""The protocol by order of events, with a torch-free toy child. One property a test, named for it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.core import clock
from harness.core import referee as referee_module
from harness.core.child import new_cgroup
from harness.core.clock import Counters
from harness.core.failures import Failure
from harness.core.sandbox import NO_LIMITS, probe
from tests.conftest import Toy, make_toy
from tests.core.children import HONEST, Toys


@pytest.fixture
def toys(toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Toys:
    return Toys(toy, tmp_path, probe().level, monkeypatch)


def test_honest_run_passes_every_state_in_order(toys: Toys) -> None:
    outcome = toys.run(HONEST)
    assert toys.states() == ["LAUNCHED", "READY", "RUNNING", "FINISHED", "JUDGED"], outcome.message
    assert outcome.reason is None
    assert outcome.judgement == {"val_loss": 1.0, "bits_per_byte": 2.0}
    assert outcome.tokens == 100
    assert outcome.tokens_counted_by == "script"
    assert toys.referee.log.rows[0]["loss"] == 2.5
    assert outcome.seconds is not None and outcome.seconds > 0
    assert not (toys.referee._plan.folder / "scratch").exists()


def test_zero_steps_is_a_valid_run(toys: Toys) -> None:
    outcome = toys.run("run = connect_run()\nstart(run)\nfinish(run)\n")
    assert outcome.state == "JUDGED"
    assert outcome.tokens == 0


def test_data_is_not_there_before_start(toys: Toys) -> None:
    outcome = toys.run("run = connect_run()\nrun.stream\n")
    assert outcome.reason is Failure.CRASH
    assert "only after run.start" in outcome.message


def test_crash_shows_the_last_lines_of_the_script(toys: Toys) -> None:
    outcome = toys.run("run = connect_run()\nstart(run)\nraise ValueError('the reason')\n")
    assert outcome.reason is Failure.CRASH
    assert "ValueError: the reason" in outcome.message


def test_script_that_never_starts_is_named(toys: Toys) -> None:
    outcome = toys.run("print('hello')\n")
    assert outcome.reason is Failure.NO_WEIGHTS
    assert "run.start" in outcome.message


def test_script_that_never_finishes_is_named(toys: Toys) -> None:
    outcome = toys.run("run = connect_run()\nstart(run)\n")
    assert outcome.reason is Failure.NO_WEIGHTS
    assert "run.finish" in outcome.message


@pytest.mark.parametrize("never_idle", [False, True])
def test_a_time_out_is_the_machines_where_others_had_the_cpus(toys: Toys, never_idle: bool) -> None:
    toys.counters = Counters(idle=0.0, stolen=0.0) if never_idle else None
    outcome = toys.run("run = connect_run()\nstart(run)\ntime.sleep(60)\n", timeout_seconds=1.5)
    assert outcome.reason is (Failure.MACHINE_BUSY if never_idle else Failure.TIMEOUT)
    assert "RUNNING" in outcome.message


def test_set_up_that_computes_too_long(toys: Toys) -> None:
    outcome = toys.run("while True: pass\n", setup_cpu_seconds=1)
    assert outcome.reason is Failure.SETUP_CAP


def test_weights_that_changed_before_start(toys: Toys) -> None:
    outcome = toys.run("run = connect_run()\nstart(run, digest='other')\n")
    assert outcome.reason is Failure.WEIGHTS_CHANGED
    assert "torch.manual_seed(run.seed)" in outcome.message


def test_tensors_that_differ_from_the_fresh_build(toys: Toys) -> None:
    outcome = toys.run("run = connect_run()\nstart(run, specs=[dict(SPEC, shape=[5])])\n")
    assert outcome.reason is Failure.WEIGHTS_CHANGED


@pytest.fixture
def tenth_of_a_core(monkeypatch: pytest.MonkeyPatch) -> None:
    """No run can widen its affinity where system calls are filtered; the rule about CPU seconds must hold alone."""
    monkeypatch.setattr(referee_module, "CORES_TOLERANCE", 0.1)


@pytest.mark.usefixtures("tenth_of_a_core")
def test_more_cores_than_the_class(toys: Toys) -> None:
    burn = """
run = connect_run()
start(run)
burners = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2)]
time.sleep(3)
finish(run)
"""
    outcome = toys.run(burn)
    assert outcome.reason is Failure.TOO_MANY_CORES
    assert toys.run(burn.replace("while True: pass", "import time; time.sleep(9)")).state == "JUDGED"


def test_weights_still_mapped_at_the_seal(toys: Toys) -> None:
    outcome = toys.run("run = connect_run()\nstart(run)\nkept = mmap.mmap(run._weights_descriptor, 0)\nfinish(run)\n")
    assert outcome.reason is Failure.WEIGHTS_MAPPED


def test_writes_after_the_seal_fail(toys: Toys) -> None:
    script = """
run = connect_run()
start(run)
kept = os.dup(run._weights_descriptor)
finish(run)
try:
    os.pwrite(kept, b"late", 0)
except PermissionError:
    print("refused")
"""
    outcome = toys.run(script)
    assert outcome.state == "JUDGED"
    assert "refused" in (toys.referee._plan.folder / "output.txt").read_text()


def test_overwritten_header_is_not_judged(toys: Toys) -> None:
    outcome = toys.run(
        "run = connect_run()\nstart(run)\nos.pwrite(run._weights_descriptor, b'\\xff' * 8, 0)\nfinish(run)\n"
    )
    assert outcome.reason is Failure.NO_WEIGHTS


@pytest.mark.parametrize(
    ("name", "script"),
    [
        ("garbage", "run = connect_run()\nrun._channel.socket.send(b'\\xff\\x00garbage')\ntime.sleep(9)\n"),
        ("no kind", "run = connect_run()\nrun._channel.socket.send(b'[1]')\ntime.sleep(9)\n"),
        ("finished before start", "run = connect_run()\nrun._channel.send('finished')\ntime.sleep(9)\n"),
        ("ready twice", "run = connect_run()\nready(run)\nready(run)\ntime.sleep(9)\n"),
        ("log before start", "run = connect_run()\nrun._channel.send('log', rows=[])\ntime.sleep(9)\n"),
        ("log of text", "run = connect_run()\nstart(run)\nrun._channel.send('log', rows=[{'a': 'b'}])\nstart(run)\n"),
        ("unknown tensor", "run = connect_run()\nready(run, specs=[{'name': 1}])\ntime.sleep(9)\n"),
        ("absurd shape", "run = connect_run()\nready(run, specs=[dict(SPEC, shape=[-1])])\ntime.sleep(9)\n"),
        ("wrong nonce", "os.environ['SPEEDRUN_NONCE'] = 'x'\nrun = connect_run()\n"),
        ("same rank twice", "run = connect_run()\nagain = connect_run()\n"),
    ],
)  # fmt: skip
def test_violation_of_the_protocol_is_named(toys: Toys, name: str, script: str) -> None:
    outcome = toys.run(script)
    assert outcome.reason in (Failure.PROTOCOL, Failure.CRASH), (name, outcome)
    if name not in ("same rank twice",):
        assert outcome.reason is Failure.PROTOCOL, (name, outcome.message)


def test_calls_out_of_order_say_what_is_due(toys: Toys) -> None:
    for call in ("run.log(step=1)", "run.finish(None)", "start(run); run.start(None)"):
        outcome = toys.run(f"run = connect_run()\n{call}\n")
        assert outcome.reason is Failure.CRASH
        assert "call connect, start, log (any number), finish" in outcome.message


def test_output_past_the_cap_is_thrown_away(toys: Toys) -> None:
    outcome = toys.run("print('x' * 1000 * 200)\n" + HONEST)
    assert outcome.state == "JUDGED"
    assert outcome.output_truncated
    assert (toys.referee._plan.folder / "output.txt").stat().st_size == 65536


def test_log_rows_past_the_cap_are_counted_and_dropped(toys: Toys) -> None:
    outcome = toys.run(HONEST.replace("run.log(step=1, loss=2.5)", "[run.log(step=i) for i in range(1500)]"))
    assert outcome.state == "JUDGED"
    assert (len(toys.referee.log.rows), toys.referee.log.dropped) == (1000, 500)


def test_divergence_is_logged_as_null(toys: Toys) -> None:
    toys.run(HONEST.replace("loss=2.5", "loss=float('nan')"))
    assert toys.referee.log.rows[0]["loss"] is None


def test_interrupt_is_an_outcome(toys: Toys, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(referee_module.Referee, "_release", interrupt)
    outcome = toys.run(HONEST)
    assert outcome.reason is Failure.INTERRUPTED


def test_a_machine_that_slept_is_named(toys: Toys, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter([0.0, 30.0])
    monkeypatch.setattr(clock, "suspended", lambda: next(seconds))
    outcome = toys.run(HONEST)
    assert outcome.reason is Failure.SUSPENDED
    assert outcome.suspended_seconds == 30.0


def test_weights_larger_than_the_cap(toys: Toys) -> None:
    outcome = toys.run(HONEST, weights_bytes=8)
    assert outcome.reason is Failure.WEIGHTS_CAP


def test_two_ranks_share_the_stream_without_overlap(toys: Toys) -> None:
    script = """
run = connect_run()
start(run)
window = run.stream.take(100)
print("window", run.rank, window[0], window[-1], flush=True)
finish(run)
"""
    outcome = toys.run(script, "2xcpu-1thread")
    assert outcome.state == "JUDGED", outcome.message
    assert outcome.tokens == 200


def test_the_reason_of_a_rank_that_fails_is_told_not_that_of_its_launcher(toys: Toys) -> None:
    script = "run = connect_run()\nif run.rank == 1:\n    raise ValueError('too cold')\ntime.sleep(60)\n"
    outcome = toys.run(script, "2xcpu-1thread")
    assert outcome.reason is Failure.CRASH
    assert outcome.message.splitlines()[-1] == "ValueError: too cold"


def test_start_on_only_one_rank_is_named(toys: Toys) -> None:
    script = "run = connect_run()\nif run.rank == 0:\n    start(run)\ntime.sleep(60)\n"
    outcome = toys.run(script, "2xcpu-1thread", timeout_seconds=8)
    assert outcome.reason is Failure.TIMEOUT
    assert "run.start was called on some ranks but not on rank 1" in outcome.message


def test_finish_on_only_one_rank_is_named(toys: Toys) -> None:
    script = """
run = connect_run()
start(run)
if run.rank == 0:
    export(run)
    run._channel.send("finished", tokens=0)
time.sleep(60)
"""
    outcome = toys.run(script, "2xcpu-1thread", timeout_seconds=8)
    assert outcome.reason is Failure.TIMEOUT
    assert "run.finish was called on some ranks but not on rank 1" in outcome.message


def test_sequential_stream_is_counted_by_the_referee(
    sequential_toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toys = Toys(sequential_toy, tmp_path, probe().level, monkeypatch)
    outcome = toys.run(HONEST.replace("tokens=run.stream.position", "tokens=1"))
    assert (outcome.tokens, outcome.tokens_counted_by) == (100, "referee")


def test_ranks_that_ask_for_different_counts_violate_the_stream(
    sequential_toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toys = Toys(sequential_toy, tmp_path, probe().level, monkeypatch)
    outcome = toys.run(HONEST.replace("take(100)", "take(100 + run.rank)"), "2xcpu-1thread")
    assert outcome.reason is Failure.PROTOCOL
    assert "asked the stream for" in outcome.message


def test_open_level_runs_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toys = Toys(make_toy(tmp_path), tmp_path, "open", monkeypatch)
    assert toys.run(HONEST).state == "JUDGED"


def test_a_run_cannot_finish_before_the_data_is_out(toys: Toys) -> None:
    outcome = toys.run("run = connect_run()\nready(run)\nrun._channel.send('finished', tokens=0)\ntime.sleep(9)\n")
    assert outcome.reason is Failure.PROTOCOL
    assert outcome.seconds is None


def test_open_files_from_a_run_are_refused(toys: Toys) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    outcome = toys.run("run = connect_run()\nstart(run)\nrun._channel.send('log', [0, 1, 2], rows=[])\ntime.sleep(9)\n")
    assert outcome.reason is Failure.PROTOCOL
    assert len(list(Path("/proc/self/fd").iterdir())) <= before


def test_set_up_cap_holds_for_a_script_that_keeps_talking(toys: Toys) -> None:
    talks = "end = time.monotonic() + 20\nwhile time.monotonic() < end: print('x', flush=True)\n"
    assert toys.run(talks, setup_cpu_seconds=1).reason is Failure.SETUP_CAP


def test_memory_cap(toys: Toys) -> None:
    grows = "kept = bytearray(600_000_000)\nfor i in range(0, len(kept), 4096): kept[i] = 1\ntime.sleep(20)\n"
    assert toys.run(grows, memory_bytes=400_000_000).reason is Failure.MEMORY_CAP


@pytest.mark.usefixtures("tenth_of_a_core")
def test_cpu_time_of_helpers_that_nobody_waits_for_counts(toys: Toys) -> None:
    script = """
run = connect_run()
start(run)
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
helpers = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(3)]
time.sleep(4)
for helper in helpers:
    helper.kill()
time.sleep(0.3)
finish(run)
"""
    assert toys.run(script).reason is Failure.TOO_MANY_CORES


SHORT_HELPERS = """
run = connect_run()
start(run)
signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel then adds their CPU time to nobody's
for _ in range(10):
    pid = os.fork()
    if pid == 0:
        while time.process_time() < 0.1: pass
        os._exit(0)
    while os.path.exists(f"/proc/{pid}"): time.sleep(0.002)
finish(run)
"""


def test_cpu_time_of_short_helpers_is_exact_in_a_control_group(toys: Toys) -> None:
    group = new_cgroup(NO_LIMITS)
    exact = group is not None and group.cpu_seconds() is not None
    if group is not None:
        group.remove()
    if not exact:
        pytest.skip("no control group with cpu.stat can be made: who lives less than half a second may be missed")
    outcome = toys.run(SHORT_HELPERS)
    assert outcome.state == "JUDGED", outcome.message
    assert outcome.cpu_seconds is not None and outcome.cpu_seconds >= 1.0


def test_shards_cannot_be_changed_from_inside(toys: Toys, toy: Toy) -> None:
    script = """
run = connect_run()
run._open_stream, keep = (lambda answer: (kept.extend(answer.descriptors), keep(answer))[1]), run._open_stream
kept = []
os.close, close = (lambda descriptor: None), os.close
start(run)
for descriptor in kept[1:]:
    for action in (
        lambda: os.pwrite(os.open(f"/proc/self/fd/{descriptor}", os.O_RDWR), b"stolen", 2000),
        lambda: os.ftruncate(os.open(f"/proc/self/fd/{descriptor}", os.O_RDWR), 0),
    ):
        try:
            action()
            print("changed")
        except OSError:
            print("refused")
finish(run)
"""
    before = [(toy.data_dir / "toy" / shard.file).read_bytes() for shard in toy.task.shards]
    outcome = toys.run(script)
    assert outcome.state == "JUDGED", outcome.message
    printed = (toys.referee._plan.folder / "output.txt").read_text()
    assert printed.split() == ["refused"] * 4
    assert [(toy.data_dir / "toy" / shard.file).read_bytes() for shard in toy.task.shards] == before


def test_a_rank_that_leaves_is_named(toys: Toys) -> None:
    leaves = "if run.rank == 1:\n    print('out of luck', flush=True)\n    sys.exit(0)\n"
    script = f"run = connect_run()\nstart(run)\n{leaves}time.sleep(60)\n"
    outcome = toys.run(script, "2xcpu-1thread")
    assert outcome.reason is Failure.NO_WEIGHTS
    assert "rank 1 ended without calling run.finish" in outcome.message and "out of luck" in outcome.message


@pytest.mark.parametrize(
    "line",
    [
        "run._channel.send('log', rows=[{'a': 10**400}])",
        "run._channel.send('log', rows=[{'\\ud800': 1.0}])",
        "run._channel.send('log', rows=[{'a' * 5000: 1}])",
    ],
)
def test_strange_log_rows_are_kept_or_refused_but_never_fatal(toys: Toys, line: str) -> None:
    outcome = toys.run(f"run = connect_run()\nstart(run)\n{line}\nfinish(run)\n")
    assert outcome.state == "JUDGED", outcome.message
    assert json.loads(json.dumps(toys.referee.log.rows))


def test_log_rows_that_are_too_long_are_an_error_in_the_script(toys: Toys) -> None:
    outcome = toys.run("run = connect_run()\nstart(run)\nrun.log(**{f'value{i}': i for i in range(200)})\n")
    assert outcome.reason is Failure.CRASH
    assert "log fewer values a step" in outcome.message


def test_a_child_that_dies_after_its_hello_is_a_crash(toys: Toys) -> None:
    script = """
from harness.core.protocol import connect
connect(0)
os._exit(7)
"""
    outcome = toys.run(script)
    assert outcome.reason is Failure.CRASH
    assert "status 7" in outcome.message
