"""Steps of tuning read no number back from the device: on a GPU the processor would wait there."""

from __future__ import annotations

from dataclasses import replace

import pytest
from device_reads import Reads
from factories import FIRST_SENTINEL, WIDTH, Words, random_episode, random_prompt, tiny_causal, tiny_model

from supmer.config import RegularizerConfig
from supmer.config.values import validate
from supmer.fewshot.descent import Descent
from supmer.fewshot.methods import METHODS
from supmer.fewshot.tuning import Context, FewShotRows
from supmer.model.regularizer import GradientRegularizer
from supmer.tasks.episode import Example

TRAINED = ("supmer", "supmer_no_regularizer", "fine_tuning", "perfect", "lora", "prefix_tuning", "bitfit")


@pytest.mark.parametrize("kind", ["T5", "causal"])
@pytest.mark.parametrize("method", TRAINED)
def test_steps_read_nothing(monkeypatch: pytest.MonkeyPatch, method: str, kind: str) -> None:
    """What an evaluation reads is the same after any number of steps."""
    monkeypatch.setattr(Descent, "FUSED_ON", ("cpu",))
    model = tiny_model(attention="sdpa") if kind == "T5" else tiny_causal()
    psi = GradientRegularizer(WIDTH, RegularizerConfig(rank=4))
    episode = random_episode(1)
    words = Words([FIRST_SENTINEL] if kind == "T5" else [])

    def seen(row: Example) -> Example:
        """Return a row as the method's form has it: PERFECT's end in the slot that the target repeats."""
        if method != "perfect":
            return replace(row, target_ids=words.scored_target(row.label))
        slot = row.input_ids[-1:]
        return replace(row, target_ids=slot)

    rows = FewShotRows(words, [*map(seen, episode.support)], [*map(seen, episode.query)], ["accuracy"], seed=0)
    counts = []
    for steps in (1, 4):
        own = {"steps": steps, "eval_every": steps, "batch_size": 2}
        config = validate({"fewshot": {**own, "learning_rate": 0.01, "perfect": own}})
        with Reads() as reads:
            METHODS[method].tune(Context(config, model, random_prompt(), psi), rows)
        counts.append(len(reads.found))
    assert counts[0] == counts[1] > 0, reads.found
