"""The planner as a user runs it."""

from __future__ import annotations

from pathlib import Path

import pytest
from scripts import call

SHAPE = """{"model_type": "t5", "vocab_size": 512, "d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 2, "num_heads": 4,
"feed_forward_proj": "gated-gelu", "tie_word_embeddings": false, "decoder_start_token_id": 0}"""


def test_the_plan_is_printed_drawn_and_written(tmp_path: Path) -> None:
    shape, page, plot = tmp_path / "config.json", tmp_path / "plan.md", tmp_path / "plan.svg"
    shape.write_text(SHAPE)
    overrides = ("meta.tasks_per_step=3", "train.sharding=full", "train.workers=3")
    files = ("--shape", str(shape), "--markdown", str(page), "--plot", str(plot))
    hardware = ("--gpus", "3", "--max-gpus", "8", "--gpu-memory", "1GiB", "--reserve", "100MiB")
    done = call("plan.py", *hardware, *files, *overrides)
    assert done.returncode == 0, done.stderr
    settings = "train.workers=3 train.sharding=none"
    assert f"recommended for 3 GPUs: {settings}" in " ".join(done.stdout.split())
    sweep = page.read_text().split("## ")[1]
    rows = [line.split("|")[1].strip() for line in sweep.splitlines() if line.startswith("|")]
    assert rows == ["GPUs", "---:", "1", "2", "3", "4", "8"]
    assert plot.read_text().startswith("<?xml")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--gpu-memory", "-1"), "--gpu-memory=-1: must be a number"),
        (("--gpus", "1.5"), "--gpus=1.5: must be a whole number"),
        (("--gpu-memory", "much"), "--gpu-memory=much: must be a number"),
        (("--row-length", "900"), "--row-length=900: must be"),
        (("--plot", "plan.doc"), "--plot=plan.doc: must end in"),
    ],
)
def test_mistakes_end_with_one_line(arguments: tuple[str, ...], said: str) -> None:
    done = call("plan.py", *arguments)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert said in done.stderr
