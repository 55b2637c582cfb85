"""Sharded passes on real gloo ranks: the same gradients, less memory, no more collectives for more tasks."""

from __future__ import annotations

import json
import os
import shutil
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from factories import WIDTH, random_episode, random_episodes, random_prompt, tiny_backbone, tiny_causal, tiny_model
from safetensors.torch import load_file, save_file
from torch import distributed, multiprocessing
from torch.profiler import ProfilerActivity, profile

from supmer.config import Config, MetaConfig, RegularizerConfig
from supmer.config.load import validate
from supmer.errors import UserError
from supmer.meta.group import TorchGroup
from supmer.meta.objective import MetaGradients, meta_gradients
from supmer.meta.passes import PassPlan, plan_rows, run_pass, support_loss
from supmer.model.prompted import PromptedModel, initial_prompt
from supmer.model.regularizer import GradientRegularizer
from supmer.model.sharding import build_sharded_model, local_parameter_bytes

pytestmark = pytest.mark.slow

QUERY = "encoder.block.0.layer.0.SelfAttention.q.weight"
ORDERS = {
    "first": MetaConfig(),
    "difference": MetaConfig(order="second", inner_steps=2),
}


def enter(rank: int, world: int, port: int) -> None:
    """Join a gloo world, as a Ray Train worker finds itself in one."""
    os.environ.update(
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
        RANK=str(rank),
        WORLD_SIZE=str(world),
        LOCAL_RANK=str(rank),
        OMP_NUM_THREADS="1",
    )
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", rank=rank, world_size=world)


def settings(folder: Path, sharding: str, size: int = 1, **train: object) -> Config:
    return validate(
        {
            "backbone": {"name": str(folder), "dropout": 0.0, "attention": "eager"},
            "train": {"sharding": sharding, "shard_size": size, "workers": 4, **train},
        }
    )


def regularizer() -> GradientRegularizer:
    return GradientRegularizer(WIDTH, RegularizerConfig(rank=6, init="xavier"), torch.Generator().manual_seed(1))


def compute(model: PromptedModel, order: str, plan: PassPlan) -> MetaGradients:
    episodes = random_episodes(num_tasks=4)
    return meta_gradients(model, regularizer(), random_prompt(), episodes, 0.7, 0.3, plan, settings=ORDERS[order])


def assert_same_as_alone(model: PromptedModel, tied: bool, group: TorchGroup) -> None:
    """Each rank must find what one process finds, in one micro-batch or in several of a row or two."""
    for order in ORDERS:
        alone = compute(tiny_model(tied=tied), order, PassPlan(4096))
        for max_tokens in (40, 4096):
            found = compute(model, order, PassPlan(max_tokens, group=group, lockstep=True))
            assert_near(found.prompt, alone.prompt)
            for name, expected in alone.regularizer.items():
                assert_near(found.regularizer[name], expected)


def assert_few_rows_end(model: PromptedModel, group: TorchGroup) -> None:
    """Where there are fewer rows than ranks, some without a row end the pass together with the others."""
    rows, prompts = random_episode(7, num_rows=2).support, random_prompt()[None]
    plan = PassPlan(4096, group=group, lockstep=True)
    batches = plan_rows([rows], prompts, plan)
    assert [float(batch.weights.sum()) for batch in batches] == [[0.5], [0.5], [0.0], [0.0]][group.rank]
    found = run_pass(model, prompts, batches, support_loss, plan)
    together = PassPlan(4096)
    alone = run_pass(tiny_model(), prompts, plan_rows([rows], prompts, together), support_loss, together)
    for one, expected in zip(found, alone, strict=True):
        assert_near(one, expected)


def assert_near(found: torch.Tensor, expected: torch.Tensor) -> None:
    assert relative(found, expected) <= 1e-5


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Return the norm of the difference over that of the expected; where nothing is expected, nothing may be found."""
    return float((found - expected).norm() / expected.norm().clamp(min=1e-20))


def check_equality(rank: int, world: int, port: int, folder: Path) -> None:
    enter(rank, world, port)
    group = TorchGroup(torch.device("cpu"))
    bytes_alone = local_parameter_bytes(tiny_backbone(tied=False))
    for tied in (True, False):
        for sharding, size in [("full", world), ("hybrid", 2)]:
            if sharding == "hybrid" and world < 4:
                continue
            config = settings(folder / ("tied" if tied else "untied"), sharding, size)
            model = build_sharded_model(config, tiny_model().centroids, torch.device("cpu"))
            assert_same_as_alone(model, tied, group)
            if world == 4 and tied:
                assert_few_rows_end(model, group)
            table = tiny_backbone(tied=tied).shared.weight
            prompt = initial_prompt(config.prompt, model, seed=0)
            assert all((table == row).all(dim=1).any() for row in prompt)
            if not tied:
                share = local_parameter_bytes(model) / bytes_alone
                print(f"{sharding}, rank {rank} of {world}: {local_parameter_bytes(model)} of {bytes_alone} bytes")
                assert share == pytest.approx(1 / size, rel=0.05)
                if rank == 0:
                    (folder / f"bytes-{sharding}-{world}.json").write_text(json.dumps(share))
    distributed.destroy_process_group()


def check_causal_equality(rank: int, world: int, port: int, folder: Path) -> None:
    """A decoder-only model sharded over all ranks, over pairs of ranks, or not at all finds the same gradients."""
    enter(rank, world, port)
    group = TorchGroup(torch.device("cpu"))
    for tied in (True, False):
        whole = tiny_causal(tied=tied)
        bytes_alone, alone = local_parameter_bytes(whole), compute(whole, "first", PassPlan(4096))
        for sharding, size in [("none", 1), ("full", world), ("hybrid", 2)]:
            config = settings(folder / f"causal-{'tied' if tied else 'untied'}", sharding, size)
            model = tiny_causal(tied=tied)
            if sharding != "none":
                model = build_sharded_model(config, whole.centroids, torch.device("cpu"))
                assert local_parameter_bytes(model) / bytes_alone == pytest.approx(1 / size, rel=0.05)
            for max_tokens in (40, 4096):
                found = compute(model, "first", PassPlan(max_tokens, group=group, lockstep=sharding != "none"))
                errors = [relative(found.prompt, alone.prompt)]
                errors += [relative(found.regularizer[name], expected) for name, expected in alone.regularizer.items()]
                assert max(errors) <= 1e-5
    distributed.destroy_process_group()


def check_collectives(rank: int, world: int, port: int, folder: Path) -> None:
    """Count the gathers of a meta-step with 1 and with 8 tasks a rank, all within one micro-batch."""
    enter(rank, world, port)
    model = build_sharded_model(settings(folder / "untied", "full"), tiny_model().centroids, torch.device("cpu"))
    plan = PassPlan(100_000, group=TorchGroup(torch.device("cpu")), lockstep=True)
    counts = []
    for num_tasks in (1, 8):
        with profile(activities=[ProfilerActivity.CPU]) as seen:
            meta_gradients(model, regularizer(), random_prompt(), random_episodes(num_tasks=num_tasks), 0.7, 0.3, plan)
        counts.append(sum(event.count for event in seen.key_averages() if event.key.startswith("c10d::_allgather")))
    assert counts[0] == counts[1] > 0
    check_refusals(folder, rank)
    distributed.destroy_process_group()


def check_refusals(folder: Path, rank: int) -> None:
    """Weights that cannot be used are refused by the ranks that read them: NaN by one of them, a lacking tensor by all."""
    for broken in ("nan", "lacking"):
        with pytest.raises(UserError) if broken == "lacking" or rank == 0 else nullcontext() as caught:
            build_sharded_model(settings(folder / broken, "full"), tiny_model().centroids, torch.device("cpu"))
        assert caught is None or QUERY in str(caught.value)


def test_more_tasks_need_no_more_gathers(backbones: Path) -> None:
    multiprocessing.spawn(check_collectives, (2, 29613, backbones), nprocs=2)


@pytest.fixture(scope="module")
def backbones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("backbones")
    for name, tied in (("tied", True), ("untied", False)):
        tiny_backbone(tied=tied).save_pretrained(folder / name)
        tiny_causal(tied=tied).backbone.save_pretrained(folder / f"causal-{name}")
    for name, change in (("nan", lambda tensors: tensors[QUERY][0].fill_(torch.nan)), ("lacking", lambda t: t.pop(QUERY))):
        broken = shutil.copytree(folder / "tied", folder / name) / "model.safetensors"
        tensors = load_file(broken)
        change(tensors)
        save_file(tensors, broken, metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize(("world", "port"), [(2, 29611), (4, 29612)])
def test_sharded_gradients_equal_those_of_one_process(world: int, port: int, backbones: Path) -> None:
    multiprocessing.spawn(check_equality, (world, port, backbones), nprocs=world)
    share = json.loads((backbones / f"bytes-full-{world}.json").read_text())
    assert share == pytest.approx(1 / world, rel=0.05)


def test_sharded_gradients_of_a_decoder_only_model(backbones: Path) -> None:
    multiprocessing.spawn(check_causal_equality, (4, 29614, backbones), nprocs=4)
