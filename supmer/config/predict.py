"""Settings of labelling new rows."""

from __future__ import annotations

from supmer.config.section import Section, setting


class PredictConfig(Section):
    """Labelling of new rows by a tuned prompt (`supmer predict`)."""

    actors: int | None = setting(
        None,
        "speed",
        ge=0,
        description="processes that label rows, each with the backbone; 0: this one does; default: 1 on a cluster, else 0",
    )
    cpus_per_actor: float = setting(1, "speed", gt=0, description="CPUs reserved for each, and torch threads it uses")
    gpus_per_actor: float | None = setting(
        None, "speed", ge=0, le=1, description="GPUs reserved for each; default: one where the cluster has any"
    )
    part_rows: int = setting(1000, "speed", ge=1, description="rows that are labelled and written at once")
