"""The experiment in small: two meta-trainings, all cells, the evidence; done once."""

from __future__ import annotations

import json
import logging
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from fewshot_material import make_task
from tiny_run import tiny_overrides, write_tiny_files

from experiments.evidence.__main__ import evidence
from supmer.config.load import load_config
from supmer.errors import UserError
from supmer.runtime import connect_ray


@pytest.fixture
def cluster() -> Iterator[None]:
    connect_ray()
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_tiny_files(tmp_path_factory.mktemp("evidence"))
    (folder / "other").mkdir()
    make_task(folder)
    file = make_task(folder / "other")
    file.write_text(file.read_text().replace("name: colour", "name: other"))
    return folder


def do_evidence(folder: Path, *more: str) -> int:
    overrides = tiny_overrides(
        folder,
        *(
            f"run.dir={folder / 'runs'}",
            "run.name=small",
            "meta.steps=2",
            "train.validate_every=2",
            "train.checkpoint_every=2",
        ),
        *(f"fewshot.tasks=[{folder / 'colour.yaml'},{folder / 'other' / 'colour.yaml'}]", "fewshot.k=4", "fewshot.steps=4"),
        *("fewshot.methods=[zero_shot,prompt_tuning,ppt,supmer]", "fewshot.seeds=[0,1]", "fewshot.eval_every=2"),
        "fewshot.transfer=true",
    )
    return evidence(load_config(None, [*overrides, *more]), Namespace(out=str(folder / "out")))


def read(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "out" / "evidence.json").read_text())
    return found


@pytest.mark.cluster
@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_the_evidence_is_whole_and_computed_once(cluster: None, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert do_evidence(folder) == 0
    found = read(folder)
    assert (found["num_tasks"], found["num_seeds"], len(found["cells"])) == (2, 2, 2 * 4 * 2)
    mean = {
        method: 100 * sum(cell["score"] for cell in found["cells"] if cell["method"] == method) / 4
        for method in ("prompt_tuning", "ppt", "supmer")
    }
    assert found["supmer_minus_vanilla"] == pytest.approx(mean["supmer"] - mean["prompt_tuning"], abs=0.01)
    assert found["supmer_minus_ppt"] == pytest.approx(mean["supmer"] - mean["ppt"], abs=0.01)
    for name in ("supmer_minus_vanilla", "supmer_minus_ppt"):
        low, high = found["intervals"][name]
        assert low <= found[name] <= high
    starts = {(folder / "runs" / f"small-{name}" / "prompt.safetensors").read_bytes() for name in ("supmer", "multitask")}
    assert len(starts) == 2
    assert found["backbone"].endswith("backbone")

    caplog.set_level(logging.INFO)
    assert do_evidence(folder) == 0
    assert "16 finished before" in caplog.text
    assert read(folder)["cells"] == found["cells"]


def test_a_mistake_in_the_tuning_is_reported_before_any_meta_training(folder: Path) -> None:
    elsewhere = folder / "elsewhere"
    with pytest.raises(UserError, match=r"fewshot\.methods=supmr: must be one of "):
        do_evidence(folder, f"run.dir={elsewhere}", "fewshot.methods=[supmr]")
    assert not elsewhere.exists()
