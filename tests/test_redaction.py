"""No password, token or key reaches a log, a message, a configuration or a run directory."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import pytest

from supmer.config.load import load_config
from supmer.errors import UserError
from supmer.redaction import RedactingFormatter, redact

METATRAIN = Path(__file__).resolve().parents[1] / "pipeline" / "metatrain.py"
SECRETS = {
    "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE",
    "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    "AWS_SESSION_TOKEN": "FwoGZXIvYXdzEXAMPLE",
    "HF_TOKEN": "hf_abcdefghijklmnop",
    "WANDB_API_KEY": "0123456789abcdef0123",
    "MLFLOW_TRACKING_PASSWORD": "correct horse battery",
}


@pytest.fixture
def secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)


def test_values_of_secret_variables_are_hidden(secrets: None) -> None:
    for value in SECRETS.values():
        assert redact(f"<{value}>") == "<***>"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("s3://KEY:se/cr+et@bucket/a", "s3://***@bucket/a"),
        ("see https://me:pass@host:80/x, or not", "see https://***@host:80/x, or not"),
        ("GET /a?X-Amz-Signature=0af3&x=1", "GET /a?X-Amz-Signature=***&x=1"),
        ("s3://bucket/a:b@c?endpoint_override=http://host:9000", "s3://bucket/a:b@c?endpoint_override=http://host:9000"),
        ("gs://anonymous@bucket/a", "gs://anonymous@bucket/a"),
    ],
)
def test_credentials_in_uris_are_hidden_and_nothing_else(text: str, shown: str) -> None:
    assert redact(text) == shown


def test_short_values_and_other_variables_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USE_TOKEN", "true")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "disabled-here")
    assert redact("true, disabled-here") == "true, disabled-here"


def test_logs_and_tracebacks_are_redacted(secrets: None) -> None:
    record = logging.LogRecord("supmer.cli", logging.INFO, "cli.py", 1, "%s", (SECRETS["HF_TOKEN"],), None)
    try:
        raise ValueError(SECRETS["AWS_SECRET_ACCESS_KEY"])
    except ValueError:
        record.exc_info = sys.exc_info()
    shown = RedactingFormatter().format(record)
    assert "ValueError: ***" in shown
    assert not any(value in shown for value in SECRETS.values())


@pytest.mark.parametrize(
    "override",
    [
        "run.dir=s3://KEY:secret-word@bucket/runs",
        "corpus.paths=[a.txt,'s3://KEY:secret-word@bucket/text']",
        "backbone.name=${oc.env:HF_TOKEN}",
        "corpus.id_column=x-${oc.env:WANDB_API_KEY}",
    ],
)
def test_settings_must_not_hold_secrets(override: str, secrets: None) -> None:
    with pytest.raises(UserError, match=r"\*\*\*.*: must not hold a password or token") as caught:
        load_config(None, [override])
    assert not any(value in str(caught.value) for value in ["secret-word", *SECRETS.values()])


def test_the_command_line_prints_no_secret(secrets: None, tmp_path: Path) -> None:
    command = [sys.executable, str(METATRAIN), f"run.dir=s3://{SECRETS['AWS_ACCESS_KEY_ID']}:secret-word@bucket"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: run.dir=s3://***@bucket: must not hold a password or token; leave it in the environment\n"
    assert not list(tmp_path.iterdir())
