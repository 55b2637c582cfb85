"""PERFECT's loss, prototypes and similarities against numbers worked out by hand and independent formulas."""

from __future__ import annotations

import math

import pytest
import torch

from supmer.config import PerfectConfig
from supmer.fewshot.methods.perfect_scores import class_means, class_scores, hinge, label_scores, similarities

ROWS, MASKS, CLASSES, WIDTH = 5, 3, 4, 8


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("inference", ["prototypes", "labels", "classifier"])
@pytest.mark.parametrize("aggregation", ["max", "mean"])
def test_shapes(inference: str, aggregation: str) -> None:
    states, labels = draw(ROWS, MASKS, WIDTH), draw(CLASSES, MASKS, WIDTH, seed=1)
    prototypes = class_means([(states, torch.tensor([0, 1, 2, 3, 0]))], CLASSES)
    assert prototypes.shape == (CLASSES, MASKS, WIDTH)
    assert label_scores(states, labels).shape == similarities(states, prototypes).shape == (ROWS, MASKS, CLASSES)
    settings = PerfectConfig.model_validate({"inference": inference, "aggregation": aggregation})
    assert class_scores(states, labels, prototypes, settings).shape == (ROWS, CLASSES)


def test_scores_are_those_of_one_table_at_equal_masks() -> None:
    """As published: row c * M + i of one table of pseudo-tokens, of which mask i looks at those of its own index."""
    states, labels = draw(ROWS, MASKS, WIDTH), draw(CLASSES, MASKS, WIDTH, seed=1)
    table = (states @ labels.reshape(CLASSES * MASKS, WIDTH).T).view(ROWS, MASKS, CLASSES, MASKS)
    expected = torch.stack([table[:, mask, :, mask] for mask in range(MASKS)], dim=1)
    torch.testing.assert_close(label_scores(states, labels), expected)


def test_the_hinge_by_hand() -> None:
    scores = torch.tensor([[[2.0, 1.5, -1.0]]])
    assert hinge(scores, torch.tensor([0])).item() == pytest.approx(0.5 / 3)
    assert hinge(scores, torch.tensor([1])).item() == pytest.approx(1.5 / 3)
    swapped = torch.tensor([[[2.0, 1.5, -1.0], [1.5, 2.0, -1.0]]])  # of the two masks one says 0.5 / 3, the other 1.5 / 3
    assert hinge(swapped, torch.tensor([0])).item() == pytest.approx(1 / 3)


@pytest.mark.parametrize("num_classes", [2, 3, 5, 6])
def test_the_hinge_of_equal_scores(num_classes: int) -> None:
    scores = torch.zeros(2, MASKS, num_classes)
    torch.testing.assert_close(hinge(scores, torch.tensor([0, 1])), torch.full((2,), (num_classes - 1) / num_classes))


def test_the_hinge_of_each_row_is_the_mean_over_its_masks() -> None:
    scores, classes = draw(ROWS, MASKS, CLASSES), torch.tensor([0, 3, 1, 2, 2])
    expected = [
        sum(
            max(0.0, 1 - scores[b, i, y].item() + scores[b, i, j].item())
            for i in range(MASKS)
            for j in range(CLASSES)
            if j != y
        )
        / (CLASSES * MASKS)
        for b, y in enumerate(classes.tolist())
    ]
    torch.testing.assert_close(hinge(scores, classes), torch.tensor(expected))


def test_the_first_step_of_label_embeddings_near_zero() -> None:
    """There every hinge is active, so that the gradient is known; Adam moves each entry by the rate against its sign."""
    states, classes = draw(ROWS, MASKS, WIDTH), torch.tensor([0, 1, 2, 3, 0])
    labels = (draw(CLASSES, MASKS, WIDTH, seed=1) * 1e-4).requires_grad_()
    before = labels.detach().clone()
    hinge(label_scores(states, labels), classes).mean().backward()
    expected = torch.stack(
        [states[classes != c].sum(dim=0) - (CLASSES - 1) * states[classes == c].sum(dim=0) for c in range(CLASSES)]
    )
    torch.testing.assert_close(labels.grad, expected / (ROWS * MASKS * CLASSES))
    torch.optim.AdamW([labels], lr=0.1, weight_decay=0.0).step()
    torch.testing.assert_close(labels.detach(), before - 0.1 * expected.sign(), rtol=0, atol=1e-5)


def test_similarities_by_hand() -> None:
    states = torch.tensor([[[1.0, 0.0]], [[0.0, 3.0]], [[-2.0, 0.0]]])
    found = similarities(states, torch.tensor([[[5.0, 0.0]]])).flatten()
    torch.testing.assert_close(found, torch.tensor([1.0, math.exp(-2), math.exp(-4)]))


def test_similarities_are_of_distances_between_directions() -> None:
    states, prototypes = draw(ROWS, MASKS, WIDTH), draw(CLASSES, MASKS, WIDTH, seed=1)
    u, v = states / states.norm(dim=-1, keepdim=True), prototypes / prototypes.norm(dim=-1, keepdim=True)
    distance = (u.unsqueeze(2) - v.transpose(0, 1).unsqueeze(0)).norm(dim=-1)
    torch.testing.assert_close(similarities(states, prototypes), torch.exp(-(distance**2)))
    cosines = torch.einsum("bmd,cmd->bmc", u, v)
    for reduced, by_cosine in ((torch.amax, cosines.amax(dim=1)), (torch.amin, cosines.amin(dim=1))):
        by_distance = reduced(similarities(states, prototypes), dim=1)
        assert torch.equal(by_distance.argmax(dim=1), by_cosine.argmax(dim=1))


def test_a_prototype_is_the_mean_of_raw_states() -> None:
    states = torch.tensor([[[3.0, 0.0]], [[0.0, 1.0]], [[1.0, 1.0]]])
    prototypes = class_means([(states, torch.tensor([0, 0, 1]))], 2)
    torch.testing.assert_close(prototypes, torch.tensor([[[1.5, 0.5]], [[1.0, 1.0]]]))
    in_two = [(states[:1], torch.tensor([0])), (states[1:], torch.tensor([0, 1]))]
    torch.testing.assert_close(class_means(in_two, 2), prototypes)
    direction = torch.nn.functional.normalize(prototypes[0], dim=-1)
    torch.testing.assert_close(direction, torch.tensor([[0.9487, 0.3162]]), rtol=0, atol=1e-4)
    scaled = states * torch.tensor([10.0, 1.0, 1.0]).view(3, 1, 1)
    assert not torch.allclose(class_means([(scaled, torch.tensor([0, 0, 1]))], 2), prototypes)
    torch.testing.assert_close(similarities(scaled, prototypes), similarities(states, prototypes))


def test_max_and_mean_over_masks_by_hand() -> None:
    prototypes = torch.tensor([[[1.0, 0.0], [1.0, 0.0]], [[0.0, 1.0], [0.0, 1.0]]])
    states = torch.tensor([[[0.6, 0.8], [0.9, 0.4359]]])
    expected = torch.tensor([[[0.4493, 0.6703], [0.8187, 0.3236]]])
    torch.testing.assert_close(similarities(states, prototypes), expected, rtol=0, atol=2e-4)
    for aggregation, scores in (("max", [0.8187, 0.6703]), ("mean", [0.6340, 0.4970])):
        settings = PerfectConfig.model_validate({"aggregation": aggregation})
        found = class_scores(states, prototypes, prototypes, settings)
        torch.testing.assert_close(found, torch.tensor([scores]), rtol=0, atol=2e-4)


def test_permuting_the_classes_permutes_the_scores() -> None:
    states, labels, prototypes = draw(ROWS, MASKS, WIDTH), draw(CLASSES, MASKS, WIDTH, seed=1), draw(CLASSES, MASKS, WIDTH)
    order = torch.tensor([2, 0, 3, 1])
    for inference in ("prototypes", "labels", "classifier"):
        settings = PerfectConfig.model_validate({"inference": inference})
        found = class_scores(states, labels[order], prototypes[order], settings)
        torch.testing.assert_close(found, class_scores(states, labels, prototypes, settings)[:, order])
