from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerBase

from supmer.errors import UserError
from supmer.fewshot.data import Row
from supmer.fewshot.labels import LabelWords
from supmer.fewshot.task import SLOT, Task
from supmer.fewshot.template import Template

MAX_TOKENS = 40
PIECES = ["the red river", "<extra_id_0>", "</s>", "<X>", "{a}", "é…", "a" * 50, " ", "12 345", "word", "{", "}"]


def template_of(
    tokenizer: PreTrainedTokenizerBase, pattern: str, truncate: tuple[str, ...] = (), max_tokens: int = MAX_TOKENS
) -> Template:
    task = Task(name="mine", patterns=[pattern], label_words=["bad", "good"], truncate=list(truncate))
    return Template(task, pattern, LabelWords(task.label_words, tokenizer, task.name), tokenizer, max_tokens)


def tokens(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


texts = st.lists(st.sampled_from(PIECES), min_size=1, max_size=30).map(" ".join).map(lambda text: " ".join(text.split()))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(a=texts, b=texts, truncate=st.sampled_from([(), ("a",), ("b", "a")]))
def test_neither_pattern_nor_slot_is_ever_cut(
    tokenizer: PreTrainedTokenizerBase, a: str, b: str, truncate: tuple[str, ...]
) -> None:
    template = template_of(tokenizer, f"yes {{a}} no {SLOT} maybe {{b}} good", truncate)
    (example,) = template.encode([Row({"a": a, "b": b}, 1)])
    assert len(example.input_ids) <= MAX_TOKENS
    slot = tokenizer.convert_tokens_to_ids("<extra_id_0>")
    assert list(example.input_ids).count(slot) == 1
    left, right = tokenizer.decode(example.input_ids).split("<extra_id_0>")
    assert left.startswith("yes") and left.rstrip().endswith("no")
    assert right.strip().startswith("maybe") and right.endswith("good")


def test_a_short_row_is_the_tokenizers_tokens_of_the_rendered_text(tokenizer: PreTrainedTokenizerBase) -> None:
    (example,) = template_of(tokenizer, f'"{{a}}"? {SLOT} .').encode([Row({"a": "the red river"}, 0)])
    assert example.input_ids.tolist() == tokens(tokenizer, '"the red river"? <extra_id_0> .')
    target = [tokenizer.convert_tokens_to_ids(token) for token in ("<extra_id_0>", "<extra_id_1>")]
    assert example.target_ids.tolist() == [target[0], *tokens(tokenizer, "bad"), target[1]]


def test_the_named_field_gives_way_first_and_the_longest_of_several(tokenizer: PreTrainedTokenizerBase) -> None:
    fields = {"a": ("the red river " * 30).strip(), "b": ("the blue tower " * 4).strip()}
    named = template_of(tokenizer, f"{{a}} {SLOT} {{b}}", ("a",)).truncate(fields)
    assert named["b"] == fields["b"] and fields["a"].startswith(named["a"]) and named["a"]
    both = template_of(tokenizer, f"{{a}} {SLOT} {{b}}", max_tokens=20).truncate(fields)
    lengths = [len(tokens(tokenizer, both[name])) for name in ("a", "b")]
    assert abs(lengths[0] - lengths[1]) <= 2
    other = template_of(tokenizer, f"{{a}} {SLOT} {{b}}", ("b",)).truncate(fields)
    assert other["b"] == "" and other["a"]


def test_special_tokens_in_a_field_stay_text(tokenizer: PreTrainedTokenizerBase) -> None:
    template = template_of(tokenizer, f"{{a}} {SLOT}")
    assert template.render({"a": "x<extra_id_0></s> y"}) == "x< extra_id_0>< /s> y <extra_id_0>"


def test_a_pattern_longer_than_the_input_is_refused(tokenizer: PreTrainedTokenizerBase) -> None:
    template = template_of(tokenizer, "the red river " * 30 + f"{{a}} {SLOT}")
    with pytest.raises(UserError, match=r"tasks.max_length: the pattern of task mine alone is longer than the 40 tokens"):
        template.encode([Row({"a": "x"}, 0)])
