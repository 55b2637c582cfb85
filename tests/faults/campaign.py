"""The fault campaign: runs of one and two workers, disturbed at random steps, must give what undisturbed runs give.

    python tests/faults/campaign.py [--faults 44] [--workers 1 2] [--seed 0] [--kinds "worker killed" ...] [--changes ...]

Each run suffers several faults of different kinds, goes on by itself or by the same command, and must end with the very
bytes of `prompt.safetensors` and `regularizer.safetensors`. An elastic run on machines that come and go is stopped after
the last change, and its checkpoint must hold what that of an undisturbed run at the same step holds: the prompt to 1e-5,
the regularizer up to what Adam makes of rounding.
Prints a table, and as its last line one JSON object.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))

import torch
from injections import FAULTS, MIXTURE, Fault
from machines import Machines
from run_process import RunLostError, RunProcess
from tiny_run import tiny_overrides, write_tiny_files
from torch import Tensor

from supmer.train import checkpoint

RESULTS = ("prompt.safetensors", "regularizer.safetensors")
SETTINGS = (
    "train.checkpoint_every=5",
    "train.validate_every=100",
    "train.keep_checkpoints=3",
    "train.max_failures=-1",
    "train.hang_seconds=30",
    "log.trackers=[]",
)
STEPS_APART = (10, 40)
"""Between one fault and the next lie at least and at most so many meta-steps."""

STEPS_AT_END = 200
"""Steps after the last fault: a run takes up to a second to hear of a signal, and goes on meanwhile."""

CONTINUING = "continuing after step"
"""What the job logs when it goes on from a checkpoint."""

ENDLESS_STEPS = 1_000_000
"""An elastic run has no last step: how many are done before a machine is noticed is a matter of the computer's speed."""

REGULARIZER_LR = 1e-4

SHARE_OF_ROUNDING = 0.1
"""Of the way that Adam can have gone with a weight of the regularizer, so much may be rounding's.

Gradients of its first layers are as small as 1e-8. The order of a sum shows in them, and Adam's steps are as long as its
rate all the same. The prompt, whose gradients pass through these layers, does not notice.
"""

TASKS_PER_STEP = 8
"""Of an elastic run, so that it does few steps in the seconds a machine takes: last digits grow apart with each."""

ENDLESS = (
    f"meta.steps={ENDLESS_STEPS}",
    f"meta.tasks_per_step={TASKS_PER_STEP}",
    f"meta.regularizer_lr={REGULARIZER_LR}",
)

CHANGES = ["machine joins", "machine lost", "machine joins", "machine preempted"]
SECONDS_OF_NOTICE = 5

SECONDS_TO_RECOVER = 400.0
"""The campaign itself must end, also on a machine with other work."""


@dataclass
class Injection:
    """One fault that was injected, and what became of it."""

    kind: str
    workers: int
    step: int
    seconds_lost: float | None = None
    identical: bool = False


def main() -> None:
    arguments = _parse()
    with tempfile.TemporaryDirectory(prefix="campaign-") as temporary:
        folder = Path(arguments.keep or temporary)
        folder.mkdir(parents=True, exist_ok=True)
        files = write_tiny_files(folder)
        rng = random.Random(arguments.seed)
        kinds = [arguments.kinds[number % len(arguments.kinds)] for number in range(arguments.faults)]
        injections = []
        for index, workers in enumerate(arguments.workers):
            share = kinds[index :: len(arguments.workers)]
            injections += disturbed_and_not(files, folder, workers, rng.sample(share, len(share)), rng)
        if arguments.changes:
            injections += elastic_and_not(files, folder, arguments.changes)
    print_table(injections)
    summary = {
        "injected": len(injections),
        "recovered": sum(injection.seconds_lost is not None for injection in injections),
        "identical": sum(injection.identical for injection in injections),
    }
    print(json.dumps({"campaign": "faults", **summary}))
    sys.exit(len(injections) != summary["identical"])


def disturbed_and_not(files: Path, folder: Path, workers: int, kinds: Sequence[str], rng: random.Random) -> list[Injection]:
    """Do one run without and one with these faults; return the faults."""
    steps = [rng.randint(*STEPS_APART) for _ in kinds]
    at = [sum(steps[: number + 1]) for number in range(len(steps))]
    settings = tiny_overrides(files, *SETTINGS, f"train.workers={workers}", f"meta.steps={sum(steps) + STEPS_AT_END}")
    undisturbed = RunProcess(folder / f"undisturbed-{workers}", settings)
    undisturbed.start()
    finish(undisturbed)
    disturbed = RunProcess(folder / f"disturbed-{workers}", settings)
    injections = disturb(disturbed, [Injection(kind, workers, step) for kind, step in zip(kinds, at, strict=True)], rng)
    identical = all(_same(undisturbed.folder / name, disturbed.folder / name) for name in RESULTS)
    for injection in injections:
        injection.identical = identical
    return injections


def elastic_and_not(files: Path, folder: Path, changes: Sequence[str]) -> list[Injection]:
    """Do a run on machines of which a second joins and is lost or taken away, and one of one worker to the same step."""
    settings = tiny_overrides(files, *SETTINGS, *ENDLESS)
    with Machines() as machines:
        machines.add()
        environment = {"RAY_ADDRESS": machines.address, "RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S": "0.5"}
        elastic = RunProcess(folder / "elastic", [*settings, "train.workers=[1,2]", "train.resize_seconds=1"], environment)
        injections = resize(elastic, machines, changes)
    identical = _repeats_undisturbed(elastic, settings)
    for injection in injections:
        injection.identical = identical
    return injections


def resize(run: RunProcess, machines: Machines, changes: Sequence[str]) -> list[Injection]:
    """Run while machines come and go, then stop; return the changes that were reached, with the seconds each cost."""
    reached: list[Injection] = []
    second = None
    with attended(run):
        for kind in changes:
            reach_step(run, run.step + STEPS_APART[1])
            injection = Injection(kind, 2, run.step)
            reached.append(injection)
            before, started = run.count(CONTINUING), time.monotonic()
            if kind == "machine joins":
                second = machines.add()
            elif kind == "machine lost":
                machines.lose(second)
            else:
                machines.preempt(second, seconds=SECONDS_OF_NOTICE)
            run.wait_until(lambda before=before: run.count(CONTINUING) > before, SECONDS_TO_RECOVER)
            reach_step(run, run.step + 1)
            injection.seconds_lost = time.monotonic() - started
            say(f"{run.folder.name}: step {injection.step}: {kind}: {injection.seconds_lost:.1f} s")
        reach_step(run, run.step + STEPS_APART[1])
        run.signal(signal.SIGTERM)
        finish(run)
    return reached


@contextmanager
def attended(run: RunProcess) -> Iterator[None]:
    """Start a run; tell of it if it is lost, and leave nothing of it."""
    try:
        run.start()
        yield
    except RunLostError as error:
        say(f"lost: {error}; the end of {run.log}:\n{run.log.read_text()[-3000:]}")
    finally:
        run.end()


def reach_step(run: RunProcess, step: int) -> None:
    run.wait_until(lambda: run.step >= step, SECONDS_TO_RECOVER)


def newest_checkpoint(run: RunProcess) -> checkpoint.Checkpoint | None:
    """Read the newest whole checkpoint, None where there is none yet."""
    folder = str(run.folder / "checkpoints")
    name = checkpoint.find_newest(folder, warn=lambda _: None)
    return checkpoint.read(f"{folder}/{name}") if name else None


def disturb(run: RunProcess, injections: list[Injection], rng: random.Random) -> list[Injection]:
    """Run to the end through all the faults; return those that were reached, with the seconds each cost."""
    reached = []
    with attended(run):
        for injection in injections:
            reach_step(run, injection.step)
            reached.append(injection)
            injection.seconds_lost = harm(run, FAULTS[injection.kind], rng)
            say(f"{run.folder.name}: step {injection.step}: {injection.kind}: {injection.seconds_lost:.1f} s")
        finish(run)
    return reached


def harm(run: RunProcess, fault: Fault, rng: random.Random) -> float:
    """Inject a fault; return the seconds until the run is further than it was."""
    fault.inject(run, rng)
    step, started = run.step, time.monotonic()
    if fault.exit_code is not None:
        run.wait_for_exit(fault.exit_code, SECONDS_TO_RECOVER)
        continued = run.count(CONTINUING)
        run.start()
        # Workers outlive a killed driver for some steps: only what comes after this line is the new command's.
        run.wait_until(lambda: run.count(CONTINUING) > continued, SECONDS_TO_RECOVER)
        step = run.step
    run.wait_until(lambda: run.step > step, SECONDS_TO_RECOVER)
    return time.monotonic() - started


def finish(run: RunProcess) -> None:
    """Wait for the run's own end."""
    run.wait_for_exit(0, SECONDS_TO_RECOVER)


def print_table(injections: Sequence[Injection]) -> None:
    say(f"\n{'fault':46}{'count':>6}{'recovered':>11}{'identical':>11}{'seconds lost (median, most)':>29}")
    for kind in dict.fromkeys(injection.kind for injection in injections):
        of_kind = [injection for injection in injections if injection.kind == kind]
        lost = [injection.seconds_lost for injection in of_kind if injection.seconds_lost is not None]
        times = f"{statistics.median(lost):.1f}, {max(lost):.1f}" if lost else "-"
        identical = sum(injection.identical for injection in of_kind)
        say(f"{kind:46}{len(of_kind):>6}{len(lost):>11}{identical:>11}{times:>29}")


def say(text: str) -> None:
    print(text, flush=True)


def _same(left: Path, right: Path) -> bool:
    return left.exists() and right.exists() and left.read_bytes() == right.read_bytes()


def _repeats_undisturbed(elastic: RunProcess, settings: Sequence[str]) -> bool:
    """Do a run up to the step that the elastic one has saved, and compare all that both have learnt."""
    saved = newest_checkpoint(elastic)
    if saved is None or elastic.exit_code != 0:
        return False
    step = saved.manifest.step
    undisturbed = RunProcess(elastic.folder.with_name("undisturbed-elastic"), [*settings, f"train.checkpoint_every={step}"])
    with attended(undisturbed):
        undisturbed.wait_until(lambda: newest_checkpoint(undisturbed) is not None, SECONDS_TO_RECOVER)
    expected = newest_checkpoint(undisturbed)
    return expected is not None and expected.manifest.step == step and _close(saved.state, expected.state, step)


def _close(one: dict[str, Tensor], other: dict[str, Tensor], step: int) -> bool:
    """Compare all that two runs of the same rates have learnt in so many steps; tell of what differs."""
    tolerance = {name: SHARE_OF_ROUNDING * REGULARIZER_LR * step for name in one if name.startswith("regularizer.")}
    tolerance["prompt"] = 1e-5
    too_far = [
        f"{name} by {(one[name] - other[name]).abs().max():.1e}"
        for name, atol in tolerance.items()
        if not torch.allclose(one[name], other[name], rtol=1e-5, atol=atol)
    ]
    if too_far:
        say(f"differs at step {step}: {', '.join(too_far)}")
    return one.keys() == other.keys() and not too_far


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--faults", type=int, default=44, help="faults in all")
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 2], help="a disturbed run for each number of workers")
    parser.add_argument("--seed", type=int, default=0, help="of the order of faults and the steps they come at")
    parser.add_argument("--kinds", nargs="+", default=MIXTURE, choices=FAULTS, help="kinds of faults, in turn")
    parser.add_argument("--changes", nargs="*", default=CHANGES, choices=CHANGES, help="of machines, in order")
    parser.add_argument("--keep", help="folder to keep the runs in; it must not hold earlier ones")
    return parser.parse_args()


if __name__ == "__main__":
    main()
