"""The experiment through its command line, in small: two meta-trainings, all cells, the evidence; done once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fewshot_material import make_task
from scripts import Finished
from scripts import run as run_script
from tiny_run import tiny_overrides, write_tiny_files

TIMEOUT = 500


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_tiny_files(tmp_path_factory.mktemp("evidence"))
    (folder / "other").mkdir()
    make_task(folder)
    file = make_task(folder / "other")
    file.write_text(file.read_text().replace("name: colour", "name: other"))
    return folder


def evidence(folder: Path, *more: str) -> Finished:
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
    return run_script("evidence.py", f"--out={folder / 'out'}", *overrides, *more, cwd=folder, timeout=TIMEOUT)


def read(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "out" / "evidence.json").read_text())
    return found


@pytest.mark.cluster
@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_the_evidence_is_whole_and_computed_once(folder: Path) -> None:
    first = evidence(folder)
    assert first.returncode == 0, first.stderr
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
    assert "colour" in (folder / "out" / "transfer.md").read_text()
    assert "Gate z" in (folder / "out" / "meta_training_supmer.html").read_text()

    again = evidence(folder)
    assert again.returncode == 0 and "16 finished before" in again.stderr
    assert read(folder)["cells"] == found["cells"]


@pytest.mark.parametrize(
    ("mistake", "told"),
    [
        ("fewshot.tasks=[sst-2]", "sst-2"),
        ("fewshot.methods=[supmr]", "fewshot.methods=supmr: must be one of "),
    ],
)
def test_a_mistake_in_the_tuning_is_told_before_any_meta_training(folder: Path, mistake: str, told: str) -> None:
    elsewhere = folder / "elsewhere"
    finished = evidence(folder, f"run.dir={elsewhere}", f"fewshot.data_dir={folder / 'nothing'}", mistake)
    assert finished.returncode == 2, finished.stderr
    assert told in finished.stderr.splitlines()[-1]
    assert not elsewhere.exists()
