"""Sharded passes on real gloo ranks: the same gradients, less memory, no more collectives for more tasks."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from factories import WIDTH, random_episode, random_episodes, random_prompt, tiny_backbone, tiny_model
from torch import distributed, multiprocessing
from torch.profiler import ProfilerActivity, profile

from supmer.cli import validate
from supmer.config import Config, MetaConfig, RegularizerConfig
from supmer.meta.group import TorchGroup
from supmer.meta.objective import MetaGradients, meta_gradients
from supmer.meta.passes import PassPlan, plan_rows, run_pass, support_loss
from supmer.model.prompted import PromptedSeq2Seq, initial_prompt
from supmer.model.regularizer import GradientRegularizer
from supmer.model.sharding import build_sharded_model, local_parameter_bytes

pytestmark = pytest.mark.slow

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


def compute(model: PromptedSeq2Seq, order: str, slots: list[int], plan: PassPlan) -> MetaGradients:
    episodes = [random_episodes(num_tasks=4)[slot] for slot in slots]
    return meta_gradients(
        model, regularizer(), random_prompt(), episodes, 0.7, 0.3, plan, settings=ORDERS[order], num_tasks=4
    )


def assert_same_as_alone(model: PromptedSeq2Seq, tied: bool, group: TorchGroup) -> None:
    """Ranks with unequal shares (rank 0 holds none) must add up to what one process finds, in few or many passes."""
    shares = [[], [0, 1, 2, 3]] if group.size == 2 else [[], [0], [1, 2], [3]]
    for order in ORDERS:
        alone = compute(tiny_model(tied=tied), order, [0, 1, 2, 3], PassPlan(4096))
        for max_tokens in (40, 4096):
            share = compute(model, order, shares[group.rank], PassPlan(max_tokens, agree=group.all_reduce_max))
            assert_near(group.all_reduce_sum(share.prompt), alone.prompt)
            for name, expected in alone.regularizer.items():
                assert_near(group.all_reduce_sum(share.regularizer[name]), expected)


def assert_unequal_work_ends(model: PromptedSeq2Seq, group: TorchGroup) -> None:
    """Ranks with 0, 1, 3 and 8 micro-batches end a pass together, and add up to what one process finds in one."""
    rows, prompts = random_episode(7, num_rows=12).support, random_prompt()[None]
    own = [rows[:0], rows[:1], rows[1:4], rows[4:]][group.rank]
    plan = PassPlan(max_tokens=1, agree=group.all_reduce_max)
    batches = plan_rows([own], prompts.shape[1], plan)
    assert len(batches) == [0, 1, 3, 8][group.rank]
    share = run_pass(model, prompts, batches, support_loss, plan).gradients * len(own) / len(rows)
    together = PassPlan(4096)
    alone = run_pass(tiny_model(), prompts, plan_rows([rows], prompts.shape[1], together), support_loss, together)
    assert_near(group.all_reduce_sum(share), alone.gradients)


def assert_near(found: torch.Tensor, expected: torch.Tensor) -> None:
    assert float((found - expected).norm()) <= 1e-5 * float(expected.norm())


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
                assert_unequal_work_ends(model, group)
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


def check_collectives(rank: int, world: int, port: int, folder: Path) -> None:
    """Count the gathers of a meta-step with 1 and with 8 tasks a rank, all within one micro-batch."""
    enter(rank, world, port)
    model = build_sharded_model(settings(folder / "untied", "full"), tiny_model().centroids, torch.device("cpu"))
    plan = PassPlan(100_000, agree=TorchGroup(torch.device("cpu")).all_reduce_max)
    counts = []
    for num_tasks in (1, 8):
        with profile(activities=[ProfilerActivity.CPU]) as seen:
            meta_gradients(model, regularizer(), random_prompt(), random_episodes(num_tasks=num_tasks), 0.7, 0.3, plan)
        counts.append(sum(event.count for event in seen.key_averages() if event.key.startswith("c10d::_allgather")))
    assert counts[0] == counts[1] > 0
    distributed.destroy_process_group()


def test_more_tasks_need_no_more_gathers(backbones: Path) -> None:
    multiprocessing.spawn(check_collectives, (2, 29613, backbones), nprocs=2)


@pytest.fixture(scope="module")
def backbones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("backbones")
    for name, tied in (("tied", True), ("untied", False)):
        tiny_backbone(tied=tied).save_pretrained(folder / name)
    return folder


@pytest.mark.parametrize(("world", "port"), [(2, 29611), (4, 29612)])
def test_sharded_gradients_equal_those_of_one_process(world: int, port: int, backbones: Path) -> None:
    multiprocessing.spawn(check_equality, (world, port, backbones), nprocs=world)
    share = json.loads((backbones / f"bytes-full-{world}.json").read_text())
    assert share == pytest.approx(1 / world, rel=0.05)
