"""Shapes of backbones without network or weights."""

from __future__ import annotations

from pathlib import Path

import pytest

from supmer.config import BackboneConfig
from supmer.errors import UserError
from supmer.planning.shapes import resolve_shape
from supmer.planning.t5 import count_weights


@pytest.mark.parametrize(
    ("name", "millions"),
    [("google/flan-t5-xl", 2850), ("google/flan-t5-base", 248), ("google/t5-v1_1-small", 77), ("google-t5/t5-base", 223)],
)
def test_known_names_have_the_published_numbers_of_parameters(name: str, millions: int) -> None:
    assert count_weights(resolve_shape(BackboneConfig(name=name))).total / 1e6 == pytest.approx(millions, rel=0.005)


def test_a_folder_and_a_file_are_read_the_untied_head_too(shape_file: Path) -> None:
    for path in (shape_file, shape_file.parent):
        shape = resolve_shape(BackboneConfig(name="anything"), str(path))
        assert (shape.own_head, shape.config.d_model, shape.config.num_decoder_layers) == (True, 64, 6)
    assert resolve_shape(BackboneConfig(name="embedded")).config.d_model == 256


@pytest.mark.parametrize("text", ['{"model_type": "bart"}', "{"])
def test_what_is_no_t5_is_refused_with_the_known_names(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    for shape in (str(tmp_path), "flan-xxxl"):
        with pytest.raises(UserError, match=rf"--shape={shape}: .*google/flan-t5-xl"):
            resolve_shape(BackboneConfig(), shape)
