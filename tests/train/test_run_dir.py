"""A run's name is bound to its settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from supmer.config import Config
from supmer.config.load import load_config
from supmer.errors import UserError
from supmer.sole_job import sole_job
from supmer.train.run_dir import RunDirectory, claim, config_hash


def config(folder: Path, *overrides: str) -> Config:
    return load_config(None, [f"run.dir={folder}", "run.name=a", *overrides])


def begun(folder: Path, *overrides: str) -> RunDirectory:
    """Claim a directory and write what training writes first."""
    _, directory = claim(config(folder, *overrides))
    Path(directory.metrics).write_text("")
    return directory


def test_a_sweep_binds_its_name_too(tmp_path: Path) -> None:
    _, directory = claim(config(tmp_path))
    Path(directory.trials).write_text("")
    with pytest.raises(UserError, match=r"run\.name=a: .* \(meta\.steps: 100000 -> 7\)"):
        claim(config(tmp_path, "meta.steps=7"))


def test_claim_writes_the_resolved_configuration(tmp_path: Path) -> None:
    given = config(tmp_path, "meta.steps=5")
    claimed, directory = claim(given)
    assert claimed == given
    assert directory.uri == str(tmp_path / "a")
    assert load_config(tmp_path / "a" / "config.yaml") == given


def test_relative_run_dir_becomes_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    _, directory = claim(load_config(None, ["run.dir=runs", "run.name=a"]))
    assert directory.uri == str(tmp_path / "runs" / "a")


@pytest.mark.parametrize(
    "change",
    ["train.workers=2", "log.every=3", "train.max_failures=0", "fewshot.k=4", "corpus.store_dir=x", "log.level=debug"],
)
def test_settings_of_place_and_speed_may_change(tmp_path: Path, change: str) -> None:
    begun(tmp_path)
    claimed, _ = claim(config(tmp_path, change))
    assert load_config(tmp_path / "a" / "config.yaml") == claimed
    assert config_hash(config(tmp_path)) == config_hash(claimed)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("meta.steps=7", "meta.steps: 100000 -> 7"),
        ("run.seed=1", "run.seed: 0 -> 1"),
        ("tasks.kinds=[nsp]", "tasks.kinds: ['nsp', 'nss', 'scsp', 'scss', 'scc'] -> ['nsp']"),
        ("backbone.dropout=0", "backbone.dropout: 0.1 -> 0.0"),
    ],
)
def test_other_changes_are_refused_and_listed(tmp_path: Path, change: str, message: str) -> None:
    begun(tmp_path)
    with pytest.raises(UserError) as caught:
        claim(config(tmp_path, change))
    assert message in str(caught.value)
    assert str(caught.value).startswith("run.name=a: ")
    assert load_config(tmp_path / "a" / "config.yaml") == config(tmp_path)
    assert config_hash(config(tmp_path)) != config_hash(config(tmp_path, change))


def test_on_conflict_new_takes_the_next_free_name_and_finds_it_again(tmp_path: Path) -> None:
    begun(tmp_path)
    assert begun(tmp_path, "run.seed=1", "run.on_conflict=new").uri == str(tmp_path / "a-2")
    assert claim(config(tmp_path, "run.seed=1", "run.on_conflict=new"))[0].run.name == "a-2"
    assert claim(config(tmp_path, "run.seed=2", "run.on_conflict=new"))[0].run.name == "a-3"


def test_on_conflict_overwrite_deletes_that_run_only(tmp_path: Path) -> None:
    begun(tmp_path)
    (tmp_path / "a" / "prompt.safetensors").write_bytes(b"old")
    (tmp_path / "b").mkdir()
    _, directory = claim(config(tmp_path, "run.seed=1", "run.on_conflict=overwrite"))
    assert sorted(path.name for path in Path(directory.uri).iterdir()) == ["config.yaml"]
    assert (tmp_path / "b").is_dir()


def test_on_conflict_overwrite_spares_a_run_that_is_at_work(tmp_path: Path) -> None:
    directory = begun(tmp_path)
    with sole_job(directory.uri), pytest.raises(UserError, match="another job is at work there"):
        claim(config(tmp_path, "run.seed=1", "run.on_conflict=overwrite"))
    assert Path(directory.metrics).exists()


def test_a_job_that_another_keeps_out_leaves_no_settings_behind(tmp_path: Path) -> None:
    _, directory = claim(config(tmp_path))
    before = Path(directory.config).read_text()
    with sole_job(directory.uri), pytest.raises(UserError, match="another job is at work there"):
        claim(config(tmp_path, "train.validate_every=7"))
    assert Path(directory.config).read_text() == before


def test_overwrite_without_a_conflict_continues(tmp_path: Path) -> None:
    begun(tmp_path)
    (tmp_path / "a" / "prompt.safetensors").write_bytes(b"mine")
    claim(config(tmp_path, "run.on_conflict=overwrite"))
    assert (tmp_path / "a" / "prompt.safetensors").read_bytes() == b"mine"


@pytest.mark.parametrize("content", [b"\xff", b"a: [", b"- 1", b"nothing: {known: 1}"])
def test_unreadable_stored_configuration_is_a_conflict(tmp_path: Path, content: bytes) -> None:
    begun(tmp_path)
    (tmp_path / "a" / "config.yaml").write_bytes(content)
    with pytest.raises(UserError, match="not readable"):
        begun(tmp_path)


def test_run_that_never_began_binds_nothing(tmp_path: Path) -> None:
    claim(config(tmp_path, "backbone.name=misspelt"))
    claimed, _ = claim(config(tmp_path, "backbone.name=right"))
    assert load_config(tmp_path / "a" / "config.yaml") == claimed


@pytest.mark.parametrize("place", ["{}/file/runs", "s4://bucket/runs", "s3://a bucket/runs"])
def test_a_place_that_cannot_be_written_is_one_clear_line(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("")
    place = place.format(tmp_path)
    with pytest.raises(UserError) as error:
        claim(load_config(None, [f"run.dir={place}", "log.trackers=[]"]))
    assert str(error.value).startswith(f"run.dir={place}: cannot be written to: ")
