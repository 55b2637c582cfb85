"""Backbones and task stores of a sweep: made once, before the trials, and shared by them."""

from __future__ import annotations

import logging

from supmer.config import Config
from supmer.corpus.clustering import min_cluster_size, min_num_clusters
from supmer.corpus.prepare import prepare
from supmer.errors import UserError
from supmer.pretrain.warmup import resolve_backbone
from supmer.tune.settings import with_settings
from supmer.tune.space import grid_points, settings_of
from supmer.tune.trials import as_single_run

logger = logging.getLogger(__name__)

STORE_SETTINGS = (
    "backbone.name",
    "backbone.revision",
    "backbone.tokenizer",
    "backbone.tokenizer_revision",
    "backbone.weights",
    "backbone.dtype",
    "backbone.warmup",
    "corpus",
    "clusters",
    "tasks.kinds",  # how many clusters must host episodes
    "tasks.num_support",
    "tasks.num_query",
    "tasks.num_options",
    "tasks.num_options_nss",
)
"""Settings and sections that decide what a store is made from."""

MAX_STORES = 50


def prepare_stores(config: Config) -> None:
    """Make what backbones and stores the trials will need and are not there yet."""
    configs = store_configs(config)
    if len(configs) > 1:
        logger.info("this space needs up to %d task stores", len(configs))
    for each in configs:
        prepare(resolve_backbone(each))


def store_configs(config: Config) -> list[Config]:
    """Return a configuration for each store that the searched settings can lead to.

    Raises:
        UserError: such a setting is continuous, or there are too many combinations.
    """
    space = {
        name: dimension.model_copy(update={"when": {}})
        for name, dimension in config.tune.space.items()
        if any(_decides(setting) for setting in _settings(config, name))
    }
    for name, dimension in space.items():
        if dimension.kind in ("uniform", "loguniform"):
            raise UserError(
                f"tune.space.{name}: must be choice, integer or fixed, as each value needs a task store of its own"
            )
    points = grid_points(config.model_copy(update={"tune": config.tune.model_copy(update={"space": space})}))
    if points is None or len(points) > MAX_STORES:
        raise UserError(f"tune.space: {', '.join(space)} would need more than {MAX_STORES} task stores; name fewer values")
    return _of_each_store(config, [settings_of(space, point) for point in points])


def _settings(config: Config, name: str) -> set[str]:
    cases = config.tune.space[name].cases
    return {name} if cases is None else {setting for settings in cases.values() for setting in settings}


def _decides(setting: str) -> bool:
    return any(setting == decisive or setting.startswith(f"{decisive}.") for decisive in STORE_SETTINGS)


def _of_each_store(config: Config, points: list[dict[str, object]]) -> list[Config]:
    """Return one configuration for each store, of the points whose settings go together; the trials of others fail."""
    found: dict[str, Config] = {}
    for settings in points:
        try:
            trial = with_settings(as_single_run(config), settings)
        except UserError as error:
            logger.debug("no store for %s: %s", settings, error)
        else:
            found.setdefault(_made_from(trial), trial)
    return list(found.values())


def _made_from(config: Config) -> str:
    """Return what decides the store of a trial, without a look at files."""
    needs = min_cluster_size(config.tasks), min_num_clusters(config.tasks)
    return repr((config.backbone, config.corpus, config.clusters, needs))
