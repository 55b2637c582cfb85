"""A decoder-only backbone through the jobs: meta-training, tuning, labelling of rows, export (METHOD section 10)."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from scripts import call
from tiny_run import make_documents, save_causal_backbone, tiny_overrides
from transformers import AutoModelForCausalLM

from supmer import Predictor
from supmer.config.load import load_config
from supmer.fewshot.starting_points import read_prompt
from supmer.model.build import build_model
from supmer.model.rows import Rows

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")

FEW_SHOT = ("fewshot.k=[2]", "fewshot.seeds=[0]", "fewshot.steps=4", "fewshot.eval_every=2", "fewshot.cpus_per_cell=0.5")
METHODS = "fewshot.methods=[zero_shot,fine_tuning,prompt_tuning,supmer_no_regularizer,supmer]"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny llama, a corpus and a task of two topics."""
    folder = tmp_path_factory.mktemp("causal")
    documents = make_documents(60)
    save_causal_backbone(folder / "backbone", documents)
    (folder / "corpus.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in documents))
    rows = [
        {"text": sentence + ".", "label": number % 6}
        for number, text in enumerate(documents)
        for sentence in text.split(". ")[:3]
        if number % 6 < 2
    ]
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[:40]))
    (folder / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[40:]))
    task = "name: topics\npatterns: ['{text} It was <X> .']\ncausal_patterns: ['{text} It was <X>']\n"
    (folder / "topics.yaml").write_text(f"{task}label_words: [ba, lu]\nfolder: {{path: .}}\n")
    return folder


@pytest.mark.cluster
def test_from_meta_training_to_an_adapter(folder: Path) -> None:
    settings = tiny_overrides(
        folder, "meta.steps=3", "run.name=tiny", f"run.dir={folder / 'runs'}", f"fewshot.tasks=[{folder / 'topics.yaml'}]"
    )
    trained = call("metatrain.py", *settings, "train.validate_every=3", "train.episode_builders=1")
    assert trained.returncode == 0, trained.stderr
    tuned = call("prompt_tune.py", *settings, *FEW_SHOT, METHODS)
    assert tuned.returncode == 0, tuned.stderr
    lines = [json.loads(line) for line in (folder / "runs/tiny/fewshot.jsonl").read_text().splitlines()]
    assert len(lines) == 5 and all(0 <= line["score"] <= 1 and line["num_test"] == 20 for line in lines)

    cell = "topics.supmer.k2.pattern0.seed0"
    details = json.loads((folder / "runs/tiny/fewshot" / cell / "details.json").read_text())
    predictor = Predictor.load(str(folder / "runs/tiny"), cell)
    rows = [json.loads(line) for line in (folder / "test.jsonl").read_text().splitlines()]
    found = predictor.predict(rows).labels
    assert found == [["ba", "lu"][max((0, 1), key=lambda label: row[label])] for row in details["scores"]]

    exported = call("export.py", "peft", "--run", folder / "runs/tiny", "--cell", cell, "--out", folder / "adapter")
    assert exported.returncode == 0, exported.stderr
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(folder / "backbone"), folder / "adapter").eval()
    ids, label = torch.tensor([[0, 40, 50, 60]]), torch.tensor([[7]])
    row = Rows(ids, torch.ones_like(ids), torch.full_like(ids, -1), label, torch.zeros(1, dtype=torch.long))
    with torch.no_grad():
        theirs = model(input_ids=ids).logits[:, -1]
        prompt = read_prompt(str(folder / "runs/tiny/fewshot" / cell), "--run")
        ours = build_model(load_config(None, settings))(prompt.unsqueeze(0), row).logits[:, 0]
    torch.testing.assert_close(ours, theirs)

    card = (folder / "adapter/README.md").read_text()
    code = re.search(r"```python\n(import torch.*?)```", card, re.DOTALL)
    assert code is not None
    names: dict[str, object] = {}
    text = code[1].replace('"this/folder"', repr(str(folder / "adapter")))
    exec(text.rpartition("print(")[0], names)
    predict = names["predict"]
    assert callable(predict)
    assert [predict(f"{row['text']} It was") for row in rows] == found


def test_a_task_without_a_causal_pattern_is_refused_in_one_line(folder: Path, tmp_path: Path) -> None:
    text = (folder / "topics.yaml").read_text().replace("causal_patterns: ['{text} It was <X>']\n", "")
    (tmp_path / "topics.yaml").write_text(text.replace("path: .", f"path: {folder}"))
    settings = tiny_overrides(folder, f"fewshot.tasks=[{tmp_path / 'topics.yaml'}]", f"run.dir={tmp_path}")
    refused = call("prompt_tune.py", *settings, "fewshot.methods=[zero_shot]", *FEW_SHOT)
    assert refused.returncode == 2
    assert refused.stderr.strip().endswith('add such as causal_patterns: ["{text} It was <X>"]'), refused.stderr
