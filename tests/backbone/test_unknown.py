"""Texts in letters that the tokenizer does not know are refused or warned of, in a corpus and in the rows of a task."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from fewshot_material import job_settings, make_backbone, make_task, sentences

from supmer.backbone.load import load_tokenizer
from supmer.config import BackboneConfig, CorpusConfig
from supmer.config.load import validate
from supmer.corpus.checks import check_known, unknown_by_source
from supmer.corpus.contamination import ExcludedText
from supmer.corpus.cutting import cut_documents
from supmer.errors import UserError
from supmer.fewshot.comparison import prepare_tasks
from supmer.readers.skipped import Skipped

ARABIC = "\u0643\u062a\u0628 \u0643\u062a\u0627\u0628 \u0642\u0644\u0645"
CHINESE = "\u6211\u4eec\u5728\u8fd9\u91cc\u3002" * 9


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_backbone(tmp_path_factory.mktemp("unknown") / "t5")


def counted(made: str, texts: list[str]) -> Skipped:
    tokenizer = load_tokenizer(BackboneConfig(name=made))
    documents = [(f"a.jsonl#{number}", text) for number, text in enumerate(texts)]
    _, counts = cut_documents(documents, CorpusConfig(), tokenizer, ExcludedText({}))
    return counts


@pytest.mark.parametrize("text", [ARABIC, CHINESE])
def test_a_corpus_in_unknown_letters_is_refused(made: str, text: str) -> None:
    counts = counted(made, [text])
    with pytest.raises(UserError, match=r"^corpus\.max_unknown=0\.2: .*of the corpus are unknown .*first in a\.jsonl#0"):
        check_known(validate({}), counts)
    check_known(validate({"corpus": {"max_unknown": 1.0}}), counts)


def test_a_few_unknown_letters_are_a_warning_that_names_the_document(made: str, caplog: pytest.LogCaptureFixture) -> None:
    counts = counted(made, [*sentences(4), ARABIC])
    with caplog.at_level(logging.WARNING, logger="supmer"):
        check_known(validate({}), counts)
    (line,) = caplog.messages
    assert "a.jsonl#4" in line and "a.jsonl#0" not in line
    caplog.clear()
    known = counted(made, sentences(4))
    with caplog.at_level(logging.WARNING, logger="supmer"):
        check_known(validate({}), known)
    assert known["tokens_unknown of the corpus"] == 0 and known["tokens_read of the corpus"] > 40 and not caplog.messages


def test_one_source_in_unknown_letters_among_others_is_refused_by_its_name(
    made: str, caplog: pytest.LogCaptureFixture
) -> None:
    tokenizer = load_tokenizer(BackboneConfig(name=made))
    documents = [*((f"en#{number}", text) for number, text in enumerate(sentences(60))), ("ar#0", ARABIC)]
    sources = ["data/en"] * 60 + ["data/ar"]
    _, counts = cut_documents(documents, CorpusConfig(), tokenizer, ExcludedText({}), sources)
    counts = Skipped.load(counts.dump())
    assert list(unknown_by_source(counts)) == ["data/ar", "data/en"]
    with pytest.raises(UserError, match=r"^corpus\.max_unknown=0\.2: .*tokens of data/ar are unknown .*first in ar#0"):
        check_known(validate({}), counts)
    with caplog.at_level(logging.INFO, logger="supmer"):
        check_known(validate({"corpus": {"max_unknown": 1.0}}), counts)
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


def test_a_task_in_unknown_letters_is_refused(made: str, tmp_path: Path) -> None:
    task = make_task(tmp_path)
    settings = job_settings(made, task, tmp_path / "runs")
    prepare_tasks(validate(settings))
    rows = tmp_path / "test.jsonl"
    rows.write_text(rows.read_text().replace("the", ARABIC).replace("at", ARABIC))
    with pytest.raises(UserError, match=r"^corpus\.max_unknown=0\.2: .* of the tokens of task colour, test are unknown"):
        prepare_tasks(validate(settings))
