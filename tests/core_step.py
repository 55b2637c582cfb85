"""A meta-step and a step of few-shot tuning by the core alone: tasks, model, meta and the tuning of `fewshot`.

    python tests/core_step.py

Runs where torch, transformers, numpy, safetensors and pydantic are all that is installed; where more is, this hides it.
"""

from __future__ import annotations

import sys

NOT_NEEDED = (
    "accelerate",
    "datasets",
    "fsspec",
    "omegaconf",
    "optuna",
    "pandas",
    "peft",
    "pyarrow",
    "ray",
    "rich",
    "scipy",
    "sklearn",
    "tensorboard",
)
sys.modules.update(dict.fromkeys(NOT_NEEDED))  # importing one raises ModuleNotFoundError

import torch  # noqa: E402
import transformers  # noqa: E402
from factories import FIRST_SENTINEL, Words, random_episode, random_episodes, tiny_causal, tiny_model  # noqa: E402

import supmer.tasks.sampler  # noqa: E402, F401
from supmer.config.values import validate  # noqa: E402
from supmer.fewshot.methods import METHODS  # noqa: E402
from supmer.fewshot.tuning import Context, FewShotRows  # noqa: E402
from supmer.meta.learner import Learner  # noqa: E402
from supmer.model.prompted import PromptedModel, initial_prompt  # noqa: E402


def run(model: PromptedModel, opening: list[int]) -> str:
    """Do a meta-step and tune by the prompt and the regularizer that come of it; return a line."""
    settings = {"steps": 2, "eval_every": 1, "batch_size": 2, "learning_rate": 0.01}
    config = validate({"prompt": {"length": 4}, "regularizer": {"rank": 4}, "meta": {"steps": 2}, "fewshot": settings})
    learner = Learner(config, model, initial_prompt(config.prompt, model, 0))
    before = learner.prompt.detach().clone()
    record = learner.step(random_episodes(num_tasks=2))
    assert not record.skipped and not torch.equal(before, learner.prompt)
    episode = random_episode(1)
    rows = FewShotRows(Words(opening), [*episode.support], [*episode.query], ["accuracy"], 0)
    tuned = METHODS["supmer"].tune(Context(config, model, learner.prompt.detach(), learner.regularizer), rows)
    assert len(tuned.curve) == 2
    return f"{type(model).__name__}: query loss {record.query_loss:.4f}, tuning loss {tuned.curve[-1].loss:.4f}"


def main() -> None:
    torch.manual_seed(0)
    for model, opening in ((tiny_model(), [FIRST_SENTINEL]), (tiny_causal(), [])):
        print(run(model, opening))
    loaded = sorted(name for name in NOT_NEEDED if sys.modules.get(name) is not None)
    assert not loaded, f"imported all the same: {loaded}"
    versions = f"Python {sys.version.split()[0]}, torch {torch.__version__}, transformers {transformers.__version__}"
    print(f"{versions}: the core needs none of {', '.join(NOT_NEEDED)}")


if __name__ == "__main__":
    main()
