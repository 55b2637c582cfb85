"""Trackers through their real clients, offline: a run in two parts, read back from where the clients keep it."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

INSTALLED = [name for name in ("tensorboard", "wandb", "mlflow") if find_spec(name)]

PROGRAM = """
import json, sys
from pathlib import Path
from supmer.config.effects import all_settings
from supmer.config.load import load_config
from supmer.train.trackers import Tracked, Trackers

folder, names = sys.argv[1:]
config = load_config(None, [f"log.trackers={names}", "log.project=prompts", "log.artifacts=true", "meta.inner_lr=0.25"])
Path(folder, "prompt.safetensors").write_bytes(b"prompt")
for first in (0, 3):  # the second part is a continued run
    trackers = Trackers(config, Tracked("mine", "sweep", folder, all_settings(config), continues=True))
    for step in range(first, first + 3):
        trackers.log({"train/nsp/query_loss": 2.0 - step / 4}, step)
    trackers.finish([f"{folder}/prompt.safetensors", f"{folder}/absent"])
cell = Trackers(config, Tracked("cell", "mine", f"{folder}/cell", {"seed": 1}))
cell.log({"test/score": 0.5}, 7)
cell.finish()
if "mlflow" in names:
    from mlflow import MlflowClient
    client = MlflowClient()
    (experiment,) = client.search_experiments(filter_string="name = 'prompts'")
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    mine, points = runs["mine"], client.get_metric_history(runs["mine"].info.run_id, "train/nsp/query_loss")
    found = {
        "runs": sorted(runs), "id": mine.info.run_id, "params": mine.data.params, "tags": mine.data.tags,
        "curve": [(point.step, point.value) for point in points],
        "files": [file.path for file in client.list_artifacts(mine.info.run_id)],
        "cell": [runs["cell"].data.metrics, runs["cell"].data.params],
    }
    Path(folder, "mlflow.json").write_text(json.dumps(found))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run in two parts, and of a cell, that all installed clients have recorded.

    In a process of its own: the clients start services, and warn of much.
    """
    folder = tmp_path_factory.mktemp("run")
    clients = {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db"}
    command = [sys.executable, "-c", PROGRAM, str(folder), f"[{','.join(INSTALLED)}]"]
    done = subprocess.run(
        command, env=os.environ | clients, cwd=folder, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr
    return folder


def needs(name: str) -> pytest.MarkDecorator:
    reason = f"{name} is not installed: pip install -c constraints.txt -e '.[{name}]'"
    return pytest.mark.skipif(name not in INSTALLED, reason=reason)


def leveldb_log(content: bytes) -> Iterator[bytes]:
    """Yield the records of a log as LevelDB writes it: blocks of 32 KiB, less the file's own header in the first."""
    position, record = 0, b""
    while position + 7 <= len(content):
        left = 32768 - (position + 7) % 32768
        if left < 7:
            position += left
            continue
        _, length, kind = struct.unpack_from("<IHB", content, position)
        record += content[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # whole, or its last part
            yield record
            record = b""


def wandb_records(file: Path) -> dict[str, Any]:
    from wandb.proto.wandb_internal_pb2 import Record

    found: dict[str, Any] = {"config": {}, "history": []}
    for data in leveldb_log(file.read_bytes()[7:]):
        record = Record()
        record.ParseFromString(data)
        if record.HasField("run"):
            found["run"] = (record.run.project, record.run.run_group, record.run.display_name, record.run.run_id)
        for item in record.config.update:
            found["config"][item.key] = json.loads(item.value_json)
        if record.history.item:
            row = {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
            found["history"].append((row["_step"], row))
    return found


@needs("wandb")
def test_wandb_offline_keeps_both_parts_under_one_run(folder: Path) -> None:
    parts = [wandb_records(file) for file in sorted(folder.glob("**/wandb/offline-run-*/run-*.wandb"))]
    mine = [part for part in parts if part["run"][2] == "mine"]
    (cell,) = (part for part in parts if part["run"][2] == "cell")
    known = json.loads((folder / "trackers.json").read_text())
    assert [part["run"] for part in mine] == [("prompts", "sweep", "mine", known["wandb"])] * 2
    assert [part["config"].get("meta.inner_lr") for part in mine] == [0.25, None]
    curve = [(step, row["train/nsp/query_loss"]) for part in mine for step, row in part["history"]]
    assert curve == [(step, 2.0 - step / 4) for step in range(6)]
    assert cell["run"][:3] == ("prompts", "mine", "cell") and cell["history"][0][1]["test/score"] == 0.5


@needs("mlflow")
def test_mlflow_has_one_run_of_both_parts(folder: Path) -> None:
    found = json.loads((folder / "mlflow.json").read_text())
    assert found["runs"] == ["cell", "mine"] and found["tags"]["group"] == "sweep"
    assert found["id"] == json.loads((folder / "trackers.json").read_text())["mlflow"]
    assert found["params"]["meta.inner_lr"] == "0.25" and found["files"] == ["prompt.safetensors"]
    assert found["curve"] == [[step, 2.0 - step / 4] for step in range(6)]
    assert found["cell"] == [{"test/score": 0.5}, {"seed": "1"}]


def test_tensorboard_has_the_settings_and_the_curve(folder: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    points = [(point.step, point.value) for point in events.Scalars("train/nsp/query_loss")]
    assert points == [(step, 2.0 - step / 4) for step in range(6)]
    assert b"meta.inner_lr: 0.25" in events.Tensors("settings/text_summary")[0].tensor_proto.string_val[0]
