"""The command line and the messages for mistakes, through a real pipeline script."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from scripts import Finished, call, run

from supmer.cli import job_parser, run_job
from supmer.config import Config
from supmer.config.load import load_config, to_yaml, validate
from supmer.errors import UserError

SHORT_OUTPUT = "from supmer import cli\nwith cli.users_mistakes_in_one_line(): print('short')"

MISTAKES = {
    "tasks.num_suport=3": "tasks.num_suport: unknown setting; did you mean tasks.num_support",
    "bakcbone.name=x": "bakcbone: unknown setting; did you mean backbone?",
    "backbone.nmae=x": "backbone.nmae: unknown setting; did you mean backbone.name?",
    "zzz.key=1": "zzz: unknown setting; allowed: run, backbone, corpus",
    "tasks.num_support=0": "tasks.num_support=0: must be at least 1",
    "tasks.num_support=": "tasks.num_support=None: must be an integer",
    "backbone.dropout=1.5": "backbone.dropout=1.5: must be at least 0 and less than 1",
    "tasks=3": "tasks=3: must be a section of settings",
    "tasks.kinds=[a]": "tasks.kinds[0]=a: must be one of nsp, nss, scsp, scss, scc",
    "tasks.kinds=[]": "tasks.kinds=[]: must not be empty",
    "tasks.kinds=nsp": "tasks.kinds=nsp: must be a list",
    "tasks.kinds=[nsp,nsp]": "tasks.kinds=['nsp', 'nsp']: must not repeat a kind",
    "tasks.kinds=[nsp": "tasks.kinds=[nsp: while parsing",
    "run.name=../x": "run.name=../x: must be at most 100 letters, digits",
    "run.seed=a": "run.seed=a: must be an integer",
    "run.seed=1.5": "run.seed=1.5: must be an integer",
    "meta.prompt_lr=fast": "meta.prompt_lr=fast: must be a number",
    "meta.prompt_lr=.inf": "meta.prompt_lr=inf: must be a finite number",
    "regularizer.gate=perhaps": "regularizer.gate=perhaps: must be true or false",
    "fewshot.seeds=[-1]": "fewshot.seeds[0]=-1: must be at least 0",
    "backbone.dtype=fp16": "backbone.dtype=fp16: must be float32 or bfloat16: T5 overflows",
    "prompt.length=500": "prompt.length=500: must be at most tasks.max_length - 64 = 448",
    "clusters.num_clusters=7": "clusters.num_clusters=7: must be at least 2 * tasks.num_options = 8",
    "train.workers=0": "train.workers=0: must be a number of at least 1, or [min, max] with 1 <= min <= max",
    "train.workers=[2,1]": "train.workers=[2, 1]: must be a number of at least 1, or [min, max] with 1 <= min <= max",
    "train.sharding=full": "train.sharding=full: must be none unless train.workers is at least 2",
    "run.dir=${nowhere}": "configuration: Interpolation key 'nowhere' not found",
    "run..name=3": "run..name=3: settings are given as section.key=value",
    "tasks": "tasks: settings are given as section.key=value",
}


@pytest.mark.parametrize(("override", "message"), MISTAKES.items())
def test_mistake_names_setting_value_and_what_is_allowed(override: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        load_config(None, override.split())
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tasks.num_support=0"], "error: tasks.num_support=0: must be at least 1"),
        (["tasks.num_suport=3"], "error: tasks.num_suport: unknown setting; did you mean tasks.num_support"),
        (["prompt.length=500"], "error: prompt.length=500: must be at most"),
        (["--steps=3"], "error: unrecognized arguments: --steps=3"),
        (["--config", "/nowhere.yaml"], "error: --config /nowhere.yaml: no such file"),
    ],
)
def test_command_line_ends_in_one_line_and_exit_code_2(arguments: list[str], message: str) -> None:
    assert_one_line(call("metatrain.py", *arguments), message)


def test_a_sweep_refuses_an_object_store() -> None:
    result = call("tune.py", "run.dir=s3://bucket/runs", "log.trackers=[]", "tune.num_trials=2")
    assert_one_line(result, "error: run.dir=s3://bucket/runs: must be a folder, not an object store, for a sweep")


def test_process_ends_in_one_line_and_exit_code_2() -> None:
    assert_one_line(run("metatrain.py", "tasks.num_support=0"), "error: tasks.num_support=0: must be at least 1")


def assert_one_line(result: Finished, message: str) -> None:
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith(message)
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("content", ["[1, 2]", "a: b: c", "run: {name: x", "\x00", "3"])
def test_unreadable_file_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(content)
    with pytest.raises(UserError, match=f"--config {path}: "):
        load_config(path)


def test_file_that_is_not_text_is_named(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(b"\xff\xfe\x81")
    with pytest.raises(UserError, match="not readable as YAML"):
        load_config(path)


def test_overrides_beat_the_file_and_may_surround_options(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("run: {name: a, seed: 1}\nmeta: {steps: 5}\n")
    result = call("metatrain.py", "run.seed=2", "--config", str(path), "run.dir=elsewhere", "--print-config")
    assert (result.returncode, result.stderr) == (0, "")
    printed = validate(yaml.safe_load(result.stdout))
    assert (printed.run.name, printed.run.seed, printed.run.dir, printed.meta.steps) == ("a", 2, "elsewhere", 5)


def test_override_of_a_mapping_replaces_it_and_one_of_a_section_or_key_adds(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(
        "fewshot: {learning_rates: {ppt: 1.0}}\nmeta: {steps: 5}\ntune: {space: {a: {cases: {x: {meta.steps: 7}}}}}\n"
    )
    replaced = load_config(
        path, ["fewshot.learning_rates={supmer: 2}", "meta={inner_lr: 3}", "tune.space={b: {choice: [1]}}"]
    )
    assert replaced.fewshot.learning_rates == {"supmer": 2}
    assert list(replaced.tune.space) == ["b"]
    assert load_config(path, ["tune.space[a]={choice: [1]}"]).tune.space["a"].kind == "choice"
    assert (replaced.meta.steps, replaced.meta.inner_lr) == (5, 3)
    assert load_config(path, ["fewshot.learning_rates.supmer=2"]).fewshot.learning_rates == {"ppt": 1, "supmer": 2}


def test_printed_configuration_reads_back_as_itself(tmp_path: Path) -> None:
    config = load_config(
        None,
        [
            "backbone.dropout=0.2",
            "tasks.kinds=[scc,nsp]",
            "corpus.paths=['a b', 'c:d']",
            "run.name=12",
            "train.workers=[1,2]",
        ],
    )
    path = tmp_path / "config.yaml"
    path.write_text(to_yaml(config))
    assert load_config(path) == config


def test_help_lists_every_section_and_setting() -> None:
    result = call("metatrain.py", "--help")
    assert result.returncode == 0
    for section in Config.model_fields:
        assert f"\n  {section}: " in result.stdout
    assert "tasks.num_options=4" in result.stdout
    assert "(at least 2 and at most 26)" in result.stdout
    assert "backbone.dropout=0.1" in result.stdout


def test_interrupt_ends_without_traceback(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(*_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(sys, "argv", ["job"])
    with pytest.raises(SystemExit) as ended:
        run_job(interrupted, job_parser("a job"))
    assert (ended.value.code, capsys.readouterr().err) == (130, "interrupted\n")


@pytest.mark.parametrize("script", ["from supmer.jobs.command import main\nmain()", SHORT_OUTPUT], ids=["long", "short"])
def test_output_that_nobody_reads_ends_without_a_word(script: str) -> None:
    """As with `supmer config schema | head`: printing fails, or only writing what was buffered, at the end."""
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-c", f"import sys\nsys.argv = ['supmer', 'config', 'schema']\n{script}"]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")
