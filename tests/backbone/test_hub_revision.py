"""A model by its hub name: the commit that it stands for is found, recorded and kept."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from fewshot_material import make_backbone
from huggingface_hub import constants

from supmer.backbone.identity import backbone_identity
from supmer.backbone.load import load_backbone, load_tokenizer, pin_revision, resolve_backbone
from supmer.config import BackboneConfig, Config
from supmer.config.load import load_config
from supmer.train import checkpoint
from supmer.train.run_dir import Origin, as_begun

NAME, OLD, NEW = "someone/tiny-t5", "a" * 40, "b" * 40


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache of the hub's client with one model, whose branch `main` is at commit OLD; the hub itself is away."""
    folder = tmp_path / "hub" / f"models--{NAME.replace('/', '--')}"
    (folder / "snapshots" / OLD).mkdir(parents=True)
    make_backbone(folder / "snapshots" / OLD)
    shutil.copytree(folder / "snapshots" / OLD, folder / "snapshots" / NEW)
    move_main(folder, OLD)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder.parent))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return folder


def move_main(folder: Path, commit: str) -> None:
    (folder / "refs").mkdir(exist_ok=True)
    (folder / "refs" / "main").write_text(commit)


def config(*overrides: str) -> Config:
    return load_config(None, [f"backbone.name={NAME}", *overrides])


def test_the_commit_is_recorded_and_loaded_also_when_the_branch_moves_on(repository: Path) -> None:
    pinned = resolve_backbone(config()).backbone
    identity = backbone_identity(pinned)
    assert (identity["name"], identity["revision"], identity["content"]) == (NAME, OLD, None)
    move_main(repository, NEW)
    shutil.rmtree(repository / "snapshots" / NEW)
    assert load_backbone(pinned).config.d_model == 32
    assert len(load_tokenizer(pinned)) > 200


def test_a_branch_and_a_commit_are_the_same_backbone(repository: Path) -> None:
    by_branch, by_commit = (resolve_backbone(config(f"backbone.revision={name}")).backbone for name in ("main", OLD))
    assert backbone_identity(by_branch) == backbone_identity(by_commit)


def test_a_folder_keeps_its_settings(repository: Path) -> None:
    folder = BackboneConfig(name=str(repository / "snapshots" / OLD))
    assert pin_revision(folder) is folder


def test_a_run_goes_on_with_the_commit_it_began_with(repository: Path, tmp_path: Path) -> None:
    assert as_begun(config(), checkpoint.newest_origin(str(tmp_path))) == config()
    origin = Origin(config_hash="c", backbone=backbone_identity(resolve_backbone(config()).backbone), store_fingerprint="s")
    checkpoint.write(str(tmp_path / "step_00000001"), checkpoint.serialize({}), 1, origin, "0")
    move_main(repository, NEW)
    assert resolve_backbone(config()).backbone.revision == NEW
    assert resolve_backbone(as_begun(config(), checkpoint.newest_origin(str(tmp_path)))).backbone.revision == OLD


def test_the_commit_of_a_tokenizer_of_its_own_is_found_kept_and_can_be_pinned(repository: Path, tmp_path: Path) -> None:
    folder = repository / "snapshots" / NEW

    def settings(*overrides: str) -> Config:
        return load_config(None, [f"backbone.name={folder}", f"backbone.tokenizer={NAME}", *overrides])

    found = resolve_backbone(settings()).backbone
    assert (found.revision, found.tokenizer_revision) == (None, OLD)
    assert backbone_identity(found) == backbone_identity(
        resolve_backbone(settings("backbone.tokenizer_revision=main")).backbone
    )
    origin = Origin(config_hash="c", backbone=backbone_identity(found), store_fingerprint="s")
    checkpoint.write(str(tmp_path / "step_00000001"), checkpoint.serialize({}), 1, origin, "0")
    move_main(repository, NEW)
    assert resolve_backbone(settings()).backbone.tokenizer_revision == NEW
    assert resolve_backbone(as_begun(settings(), checkpoint.newest_origin(str(tmp_path)))).backbone.tokenizer_revision == OLD


def test_a_tokenizer_without_a_configuration_is_known_by_its_other_files(repository: Path) -> None:
    (repository / "snapshots" / OLD / "tokenizer_config.json").unlink()
    settings = BackboneConfig(name=str(repository / "snapshots" / NEW), tokenizer=NAME)
    assert pin_revision(settings).tokenizer_revision == OLD
