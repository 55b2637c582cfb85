from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from fewshot_material import WIDTH, make_run
from safetensors.torch import load_file, save_file

from supmer.config import Config
from supmer.config.load import validate
from supmer.errors import UserError
from supmer.fewshot.comparison import run_fewshot
from supmer.sole_job import sole_job


def changed(config: Config, section: str, **settings: Any) -> Config:
    return validate({**config.model_dump(), section: {**getattr(config, section).model_dump(), **settings}})


@pytest.mark.parametrize(
    ("section", "settings", "message"),
    [
        ("fewshot", {"tasks": []}, r"fewshot.tasks=\[\]: must name tasks; built in are boolq"),
        ("fewshot", {"methods": ["supmr"]}, "fewshot.methods=supmr: must be one of zero_shot"),
        ("fewshot", {"learning_rates": {"supmr": 0.1}}, "fewshot.learning_rates=supmr: must be one of zero_shot"),
        ("fewshot", {"methods": ["ppt"]}, "fewshot.ppt_run=None: method ppt needs the directory of a run"),
        (
            "fewshot",
            {"methods": ["supmer"]},
            "fewshot.from_run=.*: has no prompt.safetensors; this makes it: .*pipeline/metatrain.py",
        ),
    ],
)
def test_each_mistake_is_found_before_ray_starts(config: Config, section: str, settings: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        run_fewshot(changed(config, section, **settings))


def test_a_task_named_twice_is_refused(config: Config) -> None:
    with pytest.raises(UserError, match="a task named colour is there already"):
        run_fewshot(changed(config, "fewshot", tasks=config.fewshot.tasks * 2))


def test_a_second_job_in_the_run_directory_is_refused_until_the_first_has_ended(config: Config) -> None:
    config = changed(config, "fewshot", methods=["zero_shot"])
    holder = (
        "import sys\nfrom supmer.sole_job import sole_job\n"
        "with sole_job(sys.argv[1]):\n    print('held', flush=True)\n    sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", holder, config.run_dir], stdin=-1, stdout=-1, text=True) as first:
        assert first.stdout is not None and first.stdout.readline() == "held\n"
        with pytest.raises(UserError, match=f"^{config.run_dir}: another job is at work there; wait for its end"):
            run_fewshot(config)
        first.kill()
    with sole_job(config.run_dir) as check:
        check()


def with_prompt(run: Path, prompt: torch.Tensor) -> None:
    save_file({"prompt": prompt}, run / "prompt.safetensors")


def without(run: Path, name: str) -> None:
    tensors = load_file(run / "regularizer.safetensors")
    del tensors[name]
    save_file(tensors, run / "regularizer.safetensors")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda run: with_prompt(run, torch.ones(5, WIDTH)), "prompt.length=4: the prompt of .* has length 5"),
        (lambda run: with_prompt(run, torch.ones(4, 7)), "its prompt has width 7, backbone.name has 32"),
        (lambda run: with_prompt(run, torch.full((4, WIDTH), torch.nan)), r"must hold a finite tensor `prompt` \[L, d\]"),
        (lambda run: with_prompt(run, torch.ones(4)), r"must hold a finite tensor `prompt` \[L, d\]"),
        (lambda run: (run / "prompt.safetensors").write_bytes(b"x" * 100), "prompt.safetensors is damaged"),
        (lambda run: (run / "regularizer.safetensors").unlink(), "has no regularizer.safetensors"),
        (lambda run: without(run, "mlp.layers.0.u"), "not a regularizer; it needs mlp.layers"),
        (lambda run: without(run, "mlp.linear_2.bias"), "not a regularizer"),
    ],
)
def test_an_unusable_run_is_reported_in_one_line(config: Config, tmp_path: Path, spoil: Any, message: str) -> None:
    spoil(make_run(tmp_path / "made"))
    changed_config = changed(config, "fewshot", methods=["supmer"], from_run=str(tmp_path / "made"))
    with pytest.raises(UserError, match=message) as caught:
        run_fewshot(changed_config)
    assert "\n" not in str(caught.value)
