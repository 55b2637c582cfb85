"""Settings of what tuned prompts are for: labelling rows of files, and answering requests."""

from __future__ import annotations

from supmer.config.section import Section, setting


class PredictConfig(Section):
    """Labelling of new rows by a tuned prompt (`supmer predict`)."""

    actors: int | None = setting(
        None,
        "speed",
        "processes that label rows, each with the backbone; 0: this one does; default: 1 on a cluster, else 0",
        ge=0,
    )
    cpus_per_actor: float = setting(1, "speed", "CPUs reserved for each, and torch threads it uses", gt=0)
    gpus_per_actor: float | None = setting(
        None, "speed", "GPUs reserved for each; default: one if there are any", ge=0, le=1
    )
    part_rows: int = setting(1000, "speed", "rows that are labelled and written at once", ge=1)


class ServeConfig(Section):
    """The endpoint that answers by tuned prompts (`supmer serve`)."""

    host: str = setting("127.0.0.1", "speed", "address to listen at; 0.0.0.0: reachable from other machines")
    port: int = setting(8000, "speed", "port to listen at", ge=1, le=65535)
    min_replicas: int = setting(1, "speed", "processes that hold the backbone, at least", ge=1)
    max_replicas: int = setting(1, "speed", "processes that hold the backbone, at most", ge=1)
    target_requests: float = setting(
        16, "speed", "requests under way for each replica; replicas are added and removed by it", gt=0
    )
    cpus_per_replica: float = setting(1, "speed", "CPUs reserved for each, and torch threads it uses", gt=0)
    gpus_per_replica: float | None = setting(
        None, "speed", "GPUs reserved for each; default: one if there are any", ge=0, le=1
    )
    max_batch: int = setting(32, "speed", "requests, of any tasks, that are computed together", ge=1)
    batch_wait_seconds: float = setting(0.002, "speed", "how long a request waits for others to join it", ge=0)
    max_rows: int = setting(256, "speed", "rows of one request", ge=1)
    max_body_bytes: int = setting(1_000_000, "speed", "size of a request's body", ge=1)
    max_waiting: int = setting(512, "speed", "requests under way; more are answered 503", ge=1)
    timeout_seconds: float = setting(60, "speed", "longest time to an answer; later it is 503", gt=0)
