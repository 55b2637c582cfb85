"""Traces of passes: what they hold in memory and how many FLOPs they do."""

from __future__ import annotations

import os

import pytest
import torch
from torch import distributed

from supmer.config import Config
from supmer.meta.passes import support_loss
from supmer.planning.costs import Costs
from supmer.planning.shapes import resolve_shape
from supmer.planning.tracing import LiveBytes, PassShape, Tracer, fake_world, make_microbatch

LENGTH = 128


@pytest.fixture(scope="module")
def tracer(small_config: Config) -> Tracer:
    return Tracer(small_config, resolve_shape(small_config.backbone))


def with_backbone(tracer: Tracer, **changes: object) -> Tracer:
    backbone = tracer.config.backbone.model_copy(update=changes)
    return Tracer(tracer.config.model_copy(update={"backbone": backbone}), tracer.shape, tracer.gpu)


@pytest.mark.slow
@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("sharded", [False, True])
def test_shallow_traces_tell_the_memory_of_the_whole_model(
    costs: Costs, tracer: Tracer, mixed: bool, checkpointing: bool, sharded: bool
) -> None:
    whole = with_backbone(tracer, gradient_checkpointing=checkpointing)
    line = costs.memory(mixed=mixed, width=LENGTH, sharded=sharded, checkpointing=checkpointing)
    for rows in (12, 32):
        peak = whole.peak_bytes(PassShape(rows, LENGTH, mixed), sharded=sharded)
        assert line.bytes_for(rows) == pytest.approx(peak, rel=0.02)


def test_a_trace_tells_what_real_tensors_need(tracer: Tracer) -> None:
    """The same pass on real tensors, without dropout, as on a GPU or a CPU."""
    plain = with_backbone(tracer, dropout=0.0)
    batch = PassShape(4, LENGTH, mixed=False)
    model = plain.build().to_empty(device="cpu")
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    prompt = torch.zeros(1, 20, 64, requires_grad=True)
    microbatch = make_microbatch(batch, 20)
    microbatch.rows.attention_mask[0, -1] = 0  # without padding, attention would leave out its mask
    with LiveBytes(known=[*model.parameters(), *model.buffers()]) as live:
        output = model(prompt, microbatch.rows)
        (support_loss(output.logits, microbatch) * microbatch.weights).sum().backward()
    assert plain.peak_bytes(batch, sharded=False) == pytest.approx(live.peak, rel=0.02)


def test_no_rows_under_the_same_budget_need_more_than_the_longest_or_the_shortest(tracer: Tracer) -> None:
    widths = (28, 32, 40, 64, 96, 128)
    peaks = [tracer.peak_bytes(PassShape(2048 // width, width, mixed=False), sharded=False) for width in widths]
    assert max(peaks) <= 1.01 * max(peaks[0], peaks[-1])


@pytest.mark.slow
def test_checkpointing_saves_memory_for_one_more_forward(tracer: Tracer) -> None:
    batch = PassShape(16, LENGTH, mixed=False)
    frugal = with_backbone(tracer, gradient_checkpointing=True)
    assert frugal.peak_bytes(batch, sharded=False) < 0.5 * tracer.peak_bytes(batch, sharded=False)
    extra = frugal.flops(batch).backward - tracer.flops(batch).backward
    assert extra == pytest.approx(tracer.flops(batch).forward, rel=0.1)


def test_frozen_weights_make_a_backward_little_dearer_than_a_forward(tracer: Tracer) -> None:
    """Only gradients of inputs are computed; fused attention, which does half as much again, is a third of this model."""
    forward, backward = tracer.flops(PassShape(4, LENGTH, mixed=False))
    assert forward < backward < 1.5 * forward


def test_flops_are_those_of_the_matrices(tracer: Tracer) -> None:
    """Per encoder position 2 x weights, and 4 x width x positions for attention; the decoder is small beside it."""
    inner, width, feed_forward = 64, 64, 128
    weights = 6 * (4 * width * inner + 3 * width * feed_forward)
    attention = 6 * 4 * inner * LENGTH
    encoder = LENGTH * (2 * weights + attention)
    assert tracer.flops(PassShape(1, LENGTH, mixed=False)).forward == pytest.approx(encoder, rel=0.1)


def test_the_fake_world_leaves_nothing_behind() -> None:
    before = dict(os.environ)
    with fake_world(64):
        assert distributed.get_world_size() == 64
    assert dict(os.environ) == before
    assert not distributed.is_initialized()
