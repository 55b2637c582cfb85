"""Building episodes against consuming them, on the same cores.

    python benchmarks/episode_stream.py --corpus ../shared/corpus/wikipedia_en.jsonl.gz --tokenizer ../shared/tokenizer

Prepares a small store, then measures: one builder by itself (no Ray); the stream through Ray Data, when nothing but taking
the episodes is done with them; the seconds to the first episodes of a short and of a long run; a consumer that only sleeps,
as long as a fast accelerator might take for a meta-step; and meta-training of a T5 of 7 million parameters (published sizes
of episodes and prompt), fed by episodes in memory and by that stream. Both must end with the same prompt. The last line is
one JSON object: `consumption_ratio` (episodes a second of the stream / of the learner), `data_wait_share` (share of the
meta-steps' time that the learner waited for episodes) and `stream_cost` (seconds of a meta-step fed by the stream / from
memory).
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import ray
import torch
from hardware import describe
from torch import Tensor
from transformers import T5Config

from supmer.config import Config
from supmer.config.load import validate
from supmer.corpus.prepare import prepare
from supmer.corpus.store import TaskStore
from supmer.meta.learner import Learner
from supmer.model.build import build_model
from supmer.model.prompted import initial_prompt
from supmer.model.seq2seq import PromptedSeq2Seq
from supmer.runtime import connect_ray
from supmer.tasks.codec import encode
from supmer.tasks.episode import Episode
from supmer.tasks.sampler import EpisodeSampler
from supmer.tasks.vocabulary import TaskVocabulary
from supmer.train.stream import EpisodeStream, local_episodes

NUM_DOCUMENTS = 150
NUM_CLUSTERS = 20
WARM_UP_STEPS = 1
PACED_STEPS = 100
FEW_STEPS, MANY_STEPS = 100, 100_000
TOLERANCE = 1e-2
"""Several threads add up in an order of their own, and Adam moves an entry by 0.1 a step, whatever the size of its gradient:
the same episodes train prompts that differ by 1e-3, other episodes such that differ by 0.1 and more."""


@dataclass
class Rate:
    """Episodes and their encoder tokens over a stretch of time."""

    episodes: int = 0
    tokens: int = 0
    seconds: float = 0.0

    def add(self, batch: list[Episode], seconds: float) -> None:
        self.episodes += len(batch)
        self.tokens += sum(len(row.input_ids) for one in batch for row in (*one.support, *one.query, *one.augmentation))
        self.seconds += seconds

    @property
    def per_second(self) -> float:
        return self.episodes / self.seconds

    def __str__(self) -> str:
        per_second = f"{self.per_second:8.2f} episodes/s {self.tokens / self.seconds:10.0f} tokens/s"
        return f"{per_second}  ({self.episodes} episodes in {self.seconds:.1f} s)"


def main() -> None:
    arguments = _parse()
    torch.set_num_threads(arguments.threads)
    print(describe())
    with tempfile.TemporaryDirectory() as folder:
        config = make_config(folder, arguments)
        connect_ray(min_cpus=2)
        store_uri = prepare(config)
        print(f"one builder    {builder_rate(config, store_uri, arguments.build_steps)}")
        streamed = stream_rate(config, store_uri, arguments.build_steps)
        print(f"stream         {streamed}")
        first = [first_after(config, store_uri, num_steps) for num_steps in (FEW_STEPS, MANY_STEPS)]
        print(f"first episodes after {first[0]:.1f} s of {FEW_STEPS} steps, {first[1]:.1f} s of {MANY_STEPS}")
        paced, waited = paced_rate(config, store_uri, arguments.step_seconds)
        print(f"sleeper        {paced}, waited {100 * waited / paced.seconds:.2f}%")
        from_memory, learned, waited = learner_rates(config, store_uri, arguments.train_steps)
        print(f"from memory    {from_memory}")
        print(f"learner        {learned}, waited {100 * waited / learned.seconds:.3f}%")
        ray.shutdown()
    summary = {
        "consumption_ratio": round(streamed.per_second / learned.per_second, 1),
        "data_wait_share": round(waited / learned.seconds, 5),
        "stream_cost": round(from_memory.per_second / learned.per_second, 2),
    }
    print(json.dumps({"benchmark": "episode_stream", **summary}))


def make_config(folder: str, arguments: argparse.Namespace) -> Config:
    """Return the published settings for a random T5 of 7 million parameters, which is written to `folder`."""
    T5Config(
        vocab_size=32128,
        d_model=128,
        d_kv=32,
        d_ff=512,
        num_layers=6,
        num_heads=4,
        decoder_start_token_id=0,
    ).save_pretrained(folder)
    return validate(
        {
            "backbone": {"name": folder, "weights": "random", "tokenizer": arguments.tokenizer},
            "corpus": {"paths": [arguments.corpus], "max_documents": NUM_DOCUMENTS, "store_dir": f"{folder}/stores"},
            "clusters": {"num_clusters": NUM_CLUSTERS, "restarts": 1},
            "train": {"episode_builders": arguments.builders},
        }
    )


def builder_rate(config: Config, store_uri: str, num_steps: int) -> Rate:
    """Build and encode in this process, as an actor does."""
    vocabulary = TaskVocabulary.of_backbone(config.backbone)
    batches = local_episodes(EpisodeSampler(TaskStore.open(store_uri), vocabulary, config), config, range(num_steps))
    rate, started = Rate(), time.perf_counter()
    for batch in batches:
        encode(batch)
        now = time.perf_counter()
        rate.add(batch, now - started)
        started = now
    return rate


def open_stream(config: Config, store_uri: str, num_steps: int = MANY_STEPS) -> EpisodeStream:
    vocabulary = TaskVocabulary.of_backbone(config.backbone)
    return EpisodeStream(store_uri, vocabulary, config, range(num_steps))


def first_after(config: Config, store_uri: str, num_steps: int) -> float:
    """Return the seconds from opening a stream of so many meta-steps to its first episodes."""
    opened = time.perf_counter()
    with open_stream(config, store_uri, num_steps) as stream:
        next(iter(stream))
        return time.perf_counter() - opened


def stream_rate(config: Config, store_uri: str, num_steps: int) -> Rate:
    """Take episodes from the stream as fast as they come."""
    rate = Rate()
    with open_stream(config, store_uri) as stream:
        batches = iter(stream)
        next(batches)
        started = time.perf_counter()
        # What was built ahead before the clock started does not count.
        for _ in islice(batches, config.train.prefetch_episodes):
            started = time.perf_counter()
        for batch in islice(batches, num_steps):
            now = time.perf_counter()
            rate.add(batch, now - started)
            started = now
    return rate


def paced_rate(config: Config, store_uri: str, step_seconds: float) -> tuple[Rate, float]:
    """Sleep for each meta-step; also return the seconds waited for episodes."""
    with open_stream(config, store_uri) as stream:
        batches = iter(stream)
        next(batches)
        return consume(batches, PACED_STEPS, lambda _: time.sleep(step_seconds))


def consume(batches: Iterator[list[Episode]], num_steps: int, step: Callable[[list[Episode]], object]) -> tuple[Rate, float]:
    """Take the episodes of each meta-step and do it; also return the seconds waited for episodes."""
    rate, waited = Rate(), 0.0
    for _ in range(num_steps):
        started = time.perf_counter()
        batch = next(batches)
        waited += time.perf_counter() - started
        step(batch)
        rate.add(batch, time.perf_counter() - started)
    return rate, waited


def learner_rates(config: Config, store_uri: str, num_steps: int) -> tuple[Rate, Rate, float]:
    """Meta-train on episodes in memory, then on the stream; also return the seconds that the latter waited for episodes."""
    vocabulary = TaskVocabulary.of_backbone(config.backbone)
    sampler = EpisodeSampler(TaskStore.open(store_uri), vocabulary, config)
    in_memory = list(local_episodes(sampler, config, range(WARM_UP_STEPS + num_steps)))
    model = build_model(config, TaskStore.open(store_uri).centroids)
    print(f"backbone of {model.backbone.num_parameters() / 1e6:.1f} M parameters")
    from_memory, _, expected = learner_rate(config, model, iter(in_memory), num_steps)
    with open_stream(config, store_uri) as stream:
        learned, waited, prompt = learner_rate(config, model, iter(stream), num_steps)
    torch.testing.assert_close(prompt, expected, rtol=0, atol=TOLERANCE)
    return from_memory, learned, waited


def learner_rate(
    config: Config, model: PromptedSeq2Seq, batches: Iterator[list[Episode]], num_steps: int
) -> tuple[Rate, float, Tensor]:
    """Meta-train from the start; also return the seconds waited for episodes and the prompt."""
    learner = Learner(config, model, initial_prompt(config.prompt, model, config.run.seed))
    for batch in islice(batches, WARM_UP_STEPS):
        learner.step(batch)
    return *consume(batches, num_steps, learner.step), learner.prompt.detach()


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    shared = Path(__file__).resolve().parents[2] / "shared"
    parser.add_argument("--corpus", default=str(shared / "corpus" / "wikipedia_en.jsonl.gz"))
    parser.add_argument("--tokenizer", default=str(shared / "tokenizer"))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--builders", type=int, default=1)
    parser.add_argument("--build-steps", type=int, default=300, help="meta-steps built without training")
    parser.add_argument("--train-steps", type=int, default=5, help="meta-steps trained")
    parser.add_argument("--step-seconds", type=float, default=0.2, help="meta-step of the consumer that only sleeps")
    return parser.parse_args()


if __name__ == "__main__":
    main()
