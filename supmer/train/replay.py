"""One meta-step of a run again, alone and in this process: what its episodes are, and what each of them does."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

import torch

from supmer import storage
from supmer.backbone.load import resolve_backbone
from supmer.config import Config
from supmer.config.load import with_settings
from supmer.corpus.prepare import prepare
from supmer.corpus.store import TaskStore
from supmer.errors import UserError
from supmer.meta.group import LocalGroup
from supmer.meta.learner import build_learner
from supmer.meta.objective import MetaGradients
from supmer.meta.record import StepRecord
from supmer.tasks.episode import Episode
from supmer.tasks.sampler import EpisodeSampler
from supmer.tasks.vocabulary import TaskVocabulary
from supmer.train import checkpoint, run_dir
from supmer.train.metrics import read_rows
from supmer.train.run_dir import as_begun, origin_of
from supmer.train.stream import local_episodes
from supmer.train.worker import set_threads

logger = logging.getLogger(__name__)


def replay(config: Config, step: int) -> Iterator[str]:
    """Recompute step `step`, counted from 1 as in `metrics.jsonl`, and yield lines about it.

    Starts from the newest checkpoint before it, or from the beginning where there is none, and first recomputes the steps
    in between. The run directory is only read. Several workers sum in another order, which changes the last digits; with
    dropout each of them draws masks of its own, so the numbers of such a run come back only in kind.

    Raises:
        UserError: there is no such run or step, or its checkpoints belong to something else.
    """
    if not 1 <= step <= config.meta.steps:
        raise UserError(f"--replay {step}: must be from 1 to meta.steps={config.meta.steps}")
    directory = run_dir.find(config)
    resolved = resolve_backbone(as_begun(config, checkpoint.newest_origin(directory.checkpoints)))
    store_uri = storage.absolute(prepare(resolved))
    resolved = with_settings(resolved, {"train.sharding": "none"})
    set_threads(resolved, workers_on_node=1)
    store = TaskStore.open(store_uri)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    learner = build_learner(resolved, store.centroids, device, LocalGroup())
    name, start = checkpoint.find_newest(directory.checkpoints, max_step=step - 1), "the beginning"
    if name is not None:
        found = checkpoint.read_for(origin_of(config, resolved, store_uri), storage.join(directory.checkpoints, name))
        learner.load_state_dict(found.state)
        start = f"checkpoint {name}"
    between = step - 1 - learner.next_step
    first = f": there is no checkpoint of step {step - 1}, so {between} steps are recomputed first" if between else ""
    yield f"step {step} from {start}{first}"
    vocabulary = TaskVocabulary.of_backbone(resolved.backbone)
    sampler = EpisodeSampler(store, vocabulary, resolved)
    for batch in local_episodes(sampler, resolved, range(learner.next_step, step)):
        if learner.next_step == step - 1:
            gradients = learner.gradients(batch)
            yield from _describe(learner.step(batch), batch, gradients)
        else:
            learner.step(batch)
    for row in read_rows(directory.metrics):
        if (row["step"], row["split"]) == (step, "train"):
            support, query = (
                "not finite" if row[name] is None else f"{row[name]:.6g}" for name in ("support_loss", "query_loss")
            )
            yield f"metrics.jsonl: support loss {support}, query loss {query}"


def _describe(record: StepRecord, episodes: Sequence[Episode], gradients: MetaGradients) -> Iterator[str]:
    """Describe each episode, then all together."""
    for index, episode in enumerate(episodes):
        clusters, others = (",".join(map(str, found)) for found in (episode.clusters, episode.augmentation_clusters))
        raw, regularized = gradients.support_gradients[index].norm(), gradients.regularized_gradients[index].norm()
        yield (
            f"episode of slot {episode.slot}: {episode.kind}, clusters {clusters}, augmented from "
            f"{others}, support loss {gradients.support_losses[index]:.6g}, "
            f"query loss {gradients.query_losses[index]:.6g}, gate {gradients.gates[index]:.4g}, "
            f"similarity {gradients.similarities[index]:.4g}, support gradient {raw:.4g}, regularized {regularized:.4g}"
        )
    yield (
        f"together: support loss {record.support_loss:.6g}, query loss {record.query_loss:.6g}, "
        f"mixing b {record.mixup_b:.4g}, gradient norm of the prompt {record.prompt_gradient_norm:.6g}, "
        f"of the regularizer {record.regularizer_gradient_norm:.6g}"
    )
    if record.skipped:
        yield "numbers are not finite: the step changes nothing"
