"""Shapes of backbones without network or weights."""

from __future__ import annotations

from pathlib import Path

import pytest

from supmer.config import BackboneConfig
from supmer.errors import UserError
from supmer.planning.shapes import build_on_meta, resolve_shape


@pytest.mark.parametrize(
    ("name", "millions"),
    [("google/flan-t5-xl", 2850), ("google/flan-t5-base", 248), ("google/t5-v1_1-small", 77), ("google-t5/t5-base", 223)],
)
def test_presets_have_the_published_numbers_of_parameters(name: str, millions: int) -> None:
    config = BackboneConfig(name=name)
    model = build_on_meta(resolve_shape(config), config)
    assert model.num_parameters() / 1e6 == pytest.approx(millions, rel=0.005)
    assert all(parameter.is_meta for parameter in model.parameters())


def test_an_untied_head_is_read_from_the_file(shape_file: Path) -> None:
    shape = resolve_shape(BackboneConfig(name="anything"), str(shape_file))
    assert shape.has_own_head
    model = build_on_meta(shape, BackboneConfig(name="anything"), depth=3)
    assert model.lm_head.weight is not model.shared.weight
    assert len(model.encoder.block) == len(model.decoder.block) == 3


def test_the_warm_up_backbone_has_the_shape_of_its_settings() -> None:
    shape = resolve_shape(BackboneConfig(name="warmup"))
    assert (shape.config.d_model, shape.config.num_layers, shape.has_own_head) == (128, 2, False)


def test_an_unknown_shape_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UserError, match=r"--shape flan-xxxl: .*google/flan-t5-xl"):
        resolve_shape(BackboneConfig(), "flan-xxxl")


def test_another_architecture_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bart"}')
    with pytest.raises(UserError, match="'bart'"):
        resolve_shape(BackboneConfig(name=str(tmp_path)))
