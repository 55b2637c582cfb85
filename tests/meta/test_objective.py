"""Meta-gradients against the golden numbers, an oracle of its own, and themselves in other batchings."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from factories import NUM_CENTROIDS, WIDTH, exact, random_episodes, random_prompt, tiny_model
from meta_oracle import Oracle, meta_objective

from supmer.config import MetaConfig, RegularizerConfig
from supmer.config.values import validate
from supmer.meta.objective import MetaGradients, meta_gradients, multitask_gradients
from supmer.meta.passes import PassPlan, plan_rows, support_loss
from supmer.model.build import build_model
from supmer.model.regularizer import GradientRegularizer
from supmer.model.seq2seq import PromptedSeq2Seq
from supmer.tasks.episode import Episode, Example

LAMS = (0.7, 1.0, 0.25)


def regularizer(init: str = "xavier", **settings: object) -> GradientRegularizer:
    config = RegularizerConfig.model_validate({"rank": 6, "init": init, **settings})
    return GradientRegularizer(WIDTH, config, torch.Generator().manual_seed(1))


def compute(
    model: PromptedSeq2Seq, psi: GradientRegularizer | None, episodes: list[Episode], max_tokens: int = 4096, **meta: object
) -> MetaGradients:
    lams = torch.tensor(LAMS, dtype=torch.float64)[: len(episodes)]
    prompt = random_prompt().to(model.centroids.dtype)
    settings = MetaConfig.model_validate(meta)
    return meta_gradients(model, psi, prompt, episodes, lams, 0.3, PassPlan(max_tokens), settings=settings)


def assert_near(actual: torch.Tensor, expected: torch.Tensor | np.ndarray, tolerance: float) -> None:
    expected = torch.as_tensor(expected)
    scale = float(expected.double().norm()) or 1.0
    assert float((actual.double() - expected.double()).norm()) <= tolerance * scale


def assert_equal_gradients(one: MetaGradients, other: MetaGradients, tolerance: float) -> None:
    for field in ("prompt", "query_losses", "gates", "similarities", "support_gradients", "regularized_gradients"):
        assert_near(getattr(one, field), getattr(other, field), tolerance)
    for name, gradient in other.regularizer.items():
        assert_near(one.regularizer[name], gradient, tolerance)


def golden_rows(arrays: np.lib.npyio.NpzFile, name: str) -> tuple[Example, ...]:
    rows = []
    for ids, mask, labels in zip(
        *(arrays[f"{name}/{part}"] for part in ("input_ids", "attention_mask", "labels")), strict=True
    ):
        length = int(mask.sum())
        rows.append(Example(ids[:length].astype(np.int32), np.full(length, -1, np.int32), labels.astype(np.int32), 0))
    return tuple(rows)


def test_golden_meta_step(shared: Path) -> None:
    arrays = np.load(shared / "golden" / "meta_step.npz")
    config = validate({"backbone": {"name": str(shared / "golden" / "tiny_t5"), "dropout": 0.0}, "meta": {"pooling": "all"}})
    psi = GradientRegularizer(32, RegularizerConfig(rank=16))
    phi = {name[4:]: torch.from_numpy(arrays[name]) for name in arrays.files if name.startswith("reg/")}
    psi.load_state_dict(phi, strict=False)
    episodes = [
        Episode(
            "nsp",
            step=0,
            slot=task,
            clusters=(task,),
            augmentation_clusters=(task + 2,),
            support=golden_rows(arrays, f"task{task}/support"),
            query=golden_rows(arrays, f"task{task}/query"),
            augmentation=golden_rows(arrays, f"task{task}/augmented"),
        )
        for task in range(2)
    ]
    result = meta_gradients(
        build_model(config, arrays["centroids"]),
        psi,
        torch.from_numpy(arrays["prompt"]),
        episodes,
        float(arrays["mixup_lambda"]),
        float(arrays["inner_lr"]),
        PassPlan(max_tokens=8192, width=40),
    )
    for task in range(2):
        assert_near(result.support_gradients[task], arrays[f"task{task}/support_grad"], 1e-4)
        assert_near(result.regularized_gradients[task], arrays[f"task{task}/regularized_grad"], 1e-4)
        assert_near(result.gates[task], arrays[f"task{task}/gate"][0], 1e-4)
    assert_near(result.query_losses, arrays["query_loss"], 1e-4)
    assert_near(result.prompt, arrays["outer/prompt_grad"], 1e-4)
    assert_near(result.similarities.mean(), arrays["ema_similarity"], 1e-4)
    assert set(result.regularizer) == set(phi)
    for name, gradient in result.regularizer.items():
        assert_near(gradient, arrays[f"outer/reg_grad/{name}"], 1e-4)


@pytest.mark.parametrize("inner_steps", [1, 3])
@pytest.mark.parametrize("tied", [True, False])
def test_oracle_in_float64(tied: bool, inner_steps: int) -> None:
    model, psi = exact(tiny_model(tied=tied)), regularizer().double()
    episodes = random_episodes()
    expected = meta_objective(
        Oracle(model.backbone, model.centroids),
        dict(psi.named_parameters()),
        random_prompt().double(),
        episodes,
        list(LAMS),
        0.3,
        inner_steps=inner_steps,
    )
    result = compute(model, psi, episodes, max_tokens=80, inner_steps=inner_steps)
    assert_near(result.prompt, expected["prompt"], 1e-9)
    assert_near(result.query_losses, torch.stack(expected["query"]), 1e-9)
    assert_near(result.support_losses, torch.stack(expected["support_losses"]), 1e-9)
    assert_near(result.gates, torch.stack(expected["gates"]), 1e-9)
    assert_near(result.support_gradients, torch.stack(expected["support"]), 1e-9)
    assert_near(result.regularized_gradients, torch.stack(expected["regularized"]), 1e-9)
    for name, gradient in expected["phi"].items():
        assert_near(result.regularizer[name], gradient, 1e-9)


@pytest.mark.parametrize("inner_steps", [1, 2])
def test_second_order_against_double_backward(inner_steps: int) -> None:
    model, psi, episodes = exact(tiny_model()), regularizer().double(), random_episodes()
    expected = meta_objective(
        Oracle(model.backbone, model.centroids),
        dict(psi.named_parameters()),
        random_prompt().double(),
        episodes,
        list(LAMS),
        0.3,
        inner_steps=inner_steps,
        exact=True,
    )
    result = compute(model, psi, episodes, max_tokens=80, inner_steps=inner_steps, order="second")
    assert_near(result.prompt, expected["prompt"], 1e-3)
    for name, gradient in expected["phi"].items():
        assert_near(result.regularizer[name], gradient, 1e-3)
    first = compute(model, psi, episodes, inner_steps=inner_steps)
    assert float((first.prompt - result.prompt).norm() / result.prompt.norm()) > 0.01


def test_prompt_gradient_against_finite_differences() -> None:
    """The whole inner and outer loop at a slightly moved prompt; pooled states are constants of the method."""
    model, episodes = exact(tiny_model()), random_episodes()
    prompt = random_prompt().double()
    settings = MetaConfig(order="second", inner_steps=2)
    lams = torch.tensor(LAMS, dtype=torch.float64)
    direction = torch.randn(prompt.shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    gradient = meta_gradients(model, None, prompt, episodes, lams, 0.3, PassPlan(4096), settings=settings).prompt
    losses = [
        meta_gradients(model, None, prompt + step * direction, episodes, lams, 0.3, PassPlan(4096), settings=settings)
        for step in (1e-5, -1e-5)
    ]
    slope = float(losses[0].query_losses.mean() - losses[1].query_losses.mean()) / 2e-5
    assert slope == pytest.approx(float((gradient * direction).sum()), rel=1e-2)


def test_difference_products_repeat_the_dropout_masks() -> None:
    """With fresh masks on both sides, their noise divided by the small step would swamp the product."""
    model, episodes = tiny_model(dropout=0.3).train(), random_episodes(num_tasks=1)
    prompt = random_prompt()
    torch.manual_seed(3)
    outer = compute(model, None, episodes).prompt
    torch.manual_seed(3)
    result = compute(model, None, episodes, order="second").prompt

    torch.manual_seed(3)
    leaf = prompt[None].clone().requires_grad_(True)
    (batch,) = plan_rows([episodes[0].support], prompt[None], PassPlan(4096))
    loss = (support_loss(model(leaf, batch.rows).logits, batch) * batch.weights).sum()
    (gradient,) = torch.autograd.grad(loss, leaf, create_graph=True)
    (product,) = torch.autograd.grad((gradient * outer).sum(), leaf)
    assert_near(result, outer - 0.3 * product[0], 5e-3)


def test_phi_gradient_against_finite_differences() -> None:
    """Move one weight of phi and look at what the whole meta-objective does (g is a constant of phi at one inner step)."""
    model, psi = exact(tiny_model()), regularizer().double()
    episodes = random_episodes(num_tasks=1)
    gradient = compute(model, psi, episodes, gate_consistency=False).regularizer["mlp.layers.1.u"]
    losses = []
    for sign in (1, -1):
        moved = deepcopy(psi)
        moved.mlp.layers[1].u.data[3, 2] += sign * 1e-5
        losses.append(float(compute(model, moved, episodes).query_losses))
    assert (losses[0] - losses[1]) / 2e-5 == pytest.approx(float(gradient[3, 2]), rel=1e-5)


@pytest.mark.parametrize("max_tokens", [17, 60, 200])
def test_batching_does_not_matter(max_tokens: int) -> None:
    model, psi = tiny_model(), regularizer()
    episodes = random_episodes()
    assert_equal_gradients(compute(model, psi, episodes, max_tokens), compute(model, psi, episodes), 1e-5)


def test_a_meta_batch_is_the_mean_of_its_tasks() -> None:
    model, psi = tiny_model(), regularizer()
    episodes = random_episodes()
    together = compute(model, psi, episodes)
    alone = [
        meta_gradients(model, psi, random_prompt(), [episode], lam, 0.3, PassPlan(4096))
        for episode, lam in zip(episodes, LAMS, strict=True)
    ]
    assert_near(together.prompt, torch.stack([result.prompt for result in alone]).mean(dim=0), 1e-5)
    assert_near(together.query_losses, torch.cat([result.query_losses for result in alone]), 1e-5)
    for name, gradient in together.regularizer.items():
        assert_near(gradient, torch.stack([result.regularizer[name] for result in alone]).mean(dim=0), 1e-5)


def test_without_regularizer_the_raw_gradient_adapts() -> None:
    result = compute(tiny_model(), None, random_episodes())
    assert torch.equal(result.regularized_gradients, result.support_gradients)
    assert result.regularizer == {}


def test_gate_consistency_reaches_the_gate_only() -> None:
    model, psi, episodes = tiny_model(), regularizer(), random_episodes()
    on, off = (compute(model, psi, episodes, gate_consistency=flag) for flag in (True, False))
    assert torch.equal(on.prompt, off.prompt)
    for name in on.regularizer:
        assert torch.equal(on.regularizer[name], off.regularizer[name]) == ("linear" not in name)


def test_augmentation_left_out_equals_lambda_one_up_to_the_mask() -> None:
    """With augmentation rows as long as the query rows the union of masks changes nothing, so lambda = 1 must be no mix."""
    model, episodes = tiny_model(), random_episodes()
    same = [Episode(e.kind, 0, e.slot, e.clusters, e.augmentation_clusters, e.support, e.query, e.query) for e in episodes]
    mixed = meta_gradients(model, None, random_prompt(), same, 1.0, 0.3, PassPlan(4096))
    plain = meta_gradients(model, None, random_prompt(), same, None, 0.3, PassPlan(4096))
    assert_near(mixed.prompt, plain.prompt, 1e-5)
    assert_near(mixed.query_losses, plain.query_losses, 1e-5)


def test_multitask_gradient_is_that_of_all_rows_at_the_prompt() -> None:
    model, episodes = exact(tiny_model()), random_episodes()
    result = multitask_gradients(model, random_prompt().double(), episodes, PassPlan(4096))
    oracle = Oracle(model.backbone, model.centroids)
    expected = []
    for e in episodes:
        both = Episode(e.kind, 0, 0, e.clusters, e.clusters, (*e.support, *e.query), e.query, e.query)
        expected.append(oracle.support(random_prompt().double(), both)[1])
    assert_near(result.prompt, torch.stack(expected).mean(dim=0), 1e-9)
    assert len(model.centroids) == NUM_CENTROIDS
