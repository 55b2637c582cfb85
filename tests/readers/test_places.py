"""Places that cannot be reached: one line, soon."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

import datasets
import pytest
from huggingface_hub import constants

from supmer.config import CorpusConfig
from supmer.corpus import hub
from supmer.errors import UserError
from supmer.readers.files import list_files


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "uri",
    [
        "abfs://container/x",
        "abfss://c@account.dfs.core.windows.net/x",
        "abfss://c@account.dfs.core.windows.net",  # here pyarrow's client ends the process that asks
        "abfs://c@localhost.invalid/x",
        "gs://supmer-no-such-bucket/x",
        "hf://datasets/no-one/nothing-at-all",
        "nowhere://x",
    ],
)
def test_file_systems_that_cannot_be_opened_are_one_line(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("AZURE_"):
            monkeypatch.delenv(name)
    with pytest.raises(UserError, match=rf"^corpus\.paths={re.escape(uri)}: (cannot be|no such file)") as error:
        list_files([uri], "auto", "corpus.paths")
    assert "\n" not in str(error.value)


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No service at the hub's address."""
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    hub._why_silent.cache_clear()
    yield
    hub._why_silent.cache_clear()


@pytest.mark.timeout(30)
@pytest.mark.usefixtures("no_hub")
def test_a_name_without_a_hub_is_one_line_after_a_word(caplog: pytest.LogCaptureFixture) -> None:
    config = CorpusConfig(format="hub", paths=["no-one/nothing"])
    with caplog.at_level("INFO"), pytest.raises(UserError, match=r"corpus.paths=no-one/nothing: cannot be opened .*reach"):
        hub.describe_hub(config)
    assert [record.message.split(" (")[0] for record in caplog.records if record.name == hub.__name__] == [
        "looking for no-one/nothing on the hub",
        "http://127.0.0.1:9 does not answer",
    ]
    assert "Retry" not in caplog.text and not constants.HF_HUB_OFFLINE and not datasets.config.HF_HUB_OFFLINE
