"""One meta-step of a run again, alone and in this process: what its episodes are, and what each of them does."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

import torch

from supmer import storage
from supmer.backbone.load import load_tokenizer
from supmer.config import Config
from supmer.corpus.prepare import prepare
from supmer.corpus.store import TaskStore
from supmer.errors import UserError
from supmer.meta.group import LocalGroup
from supmer.meta.learner import Learner, StepReport
from supmer.meta.objective import MetaGradients
from supmer.pretrain import warmup
from supmer.tasks.episode import Episode
from supmer.tasks.sampler import EpisodeSampler
from supmer.tasks.vocabulary import TaskVocabulary
from supmer.train import checkpoint, run_dir
from supmer.train.job import Origin
from supmer.train.metrics import read_rows
from supmer.train.origin import as_begun, origin_of
from supmer.train.run_dir import RunDirectory
from supmer.train.stream import local_episodes
from supmer.train.worker import build_learner, set_threads

logger = logging.getLogger(__name__)


def replay(config: Config, step: int) -> Iterator[str]:
    """Recompute step `step`, counted from 1 as in `metrics.jsonl`, and yield lines that tell of it.

    Starts from the newest checkpoint before it, or from the beginning where there is none, and first recomputes the steps
    in between. The run directory is only read. Several workers sum in another order, which changes the last digits; with
    dropout each of them draws masks of its own, so the numbers of such a run come back only in kind.

    Raises:
        UserError: there is no such run or step, or its checkpoints belong to something else.
    """
    if not 1 <= step <= config.meta.steps:
        raise UserError(f"--replay {step}: must be from 1 to meta.steps={config.meta.steps}")
    directory = run_dir.find(config)
    resolved = warmup.resolve_backbone(as_begun(config, directory.checkpoints))
    store_uri = storage.absolute(prepare(resolved))
    alone = resolved.train.model_copy(update={"sharding": "none"})
    resolved = resolved.model_copy(update={"train": alone})
    set_threads(resolved, workers_on_node=1)
    store = TaskStore.open(store_uri)
    learner = build_learner(resolved, store, _device(), LocalGroup())
    yield _restore(learner, directory, origin_of(config, resolved, store_uri), step)
    vocabulary = TaskVocabulary.from_tokenizer(load_tokenizer(resolved.backbone))
    sampler = EpisodeSampler(store, vocabulary, resolved)
    first = learner.next_step
    batches = local_episodes(sampler, first, range(resolved.meta.tasks_per_step), step - first)
    for batch in batches:
        if learner.next_step == step - 1:
            shares = learner.gradients(batch)
            yield from _describe(learner.step(batch), batch, shares)
        else:
            learner.step(batch)
    yield from _recorded(directory, step)


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _restore(learner: Learner, directory: RunDirectory, origin: Origin, step: int) -> str:
    """Load the newest whole checkpoint from before `step`, and say what is recomputed."""
    name = checkpoint.find_newest(directory.checkpoints, max_step=step - 1)
    if name is not None:
        learner.load_state_dict(checkpoint.read_for(origin, storage.join(directory.checkpoints, name)).state)
    start = f"checkpoint {name}" if name else "the beginning"
    between = step - 1 - learner.next_step
    if not between:
        return f"step {step} from {start}"
    return f"step {step} from {start}: there is no checkpoint of step {step - 1}, so {between} steps are recomputed first"


def _describe(report: StepReport, episodes: Sequence[Episode], shares: MetaGradients) -> Iterator[str]:
    """Tell of each episode, then of all together."""
    for index, episode in enumerate(episodes):
        raw, regularized = shares.support_gradients[index].norm(), shares.regularized_gradients[index].norm()
        yield (
            f"episode of slot {episode.slot}: {episode.kind}, clusters {_list(episode.clusters)}, augmented from "
            f"{_list(episode.augmentation_clusters)}, support loss {shares.support_losses[index]:.6g}, "
            f"query loss {shares.query_losses[index]:.6g}, gate {shares.gates[index]:.4g}, "
            f"similarity {shares.similarities[index]:.4g}, support gradient {raw:.4g}, regularized {regularized:.4g}"
        )
    means = report.means
    yield (
        f"together: support loss {means.support_loss:.6g}, query loss {means.query_loss:.6g}, "
        f"mixing b {report.mixup_b:.4g}, gradient norm of the prompt {report.prompt_gradient_norm:.6g}, "
        f"of the regularizer {report.regularizer_gradient_norm:.6g}"
    )
    if report.skipped:
        yield "numbers are not finite: the step changes nothing"


def _recorded(directory: RunDirectory, step: int) -> Iterator[str]:
    """Tell what the run itself wrote down."""
    for row in read_rows(directory.metrics):
        if (row["step"], row["split"]) == (step, "train"):
            yield f"metrics.jsonl: support loss {_number(row['support_loss'])}, query loss {_number(row['query_loss'])}"


def _number(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.6g}"


def _list(numbers: Sequence[int]) -> str:
    return ",".join(map(str, numbers))
