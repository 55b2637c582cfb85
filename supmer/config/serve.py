"""Settings of the endpoint."""

from __future__ import annotations

from supmer.config.section import Section, setting


class ServeConfig(Section):
    """The endpoint that answers by tuned prompts (`supmer serve`)."""

    host: str = setting("127.0.0.1", "speed", description="address to listen at; 0.0.0.0: reachable from other machines")
    port: int = setting(8000, "speed", ge=1, le=65535, description="port to listen at")
    min_replicas: int = setting(1, "speed", ge=1, description="processes that hold the backbone, at least")
    max_replicas: int = setting(1, "speed", ge=1, description="processes that hold the backbone, at most")
    target_requests: float = setting(
        16, "speed", gt=0, description="requests under way for each replica, by which replicas are added and removed"
    )
    cpus_per_replica: float = setting(1, "speed", gt=0, description="CPUs reserved for each, and torch threads it uses")
    gpus_per_replica: float | None = setting(
        None, "speed", ge=0, le=1, description="GPUs reserved for each; default: one where the cluster has any"
    )
    max_batch: int = setting(32, "speed", ge=1, description="requests, of any tasks, that are computed together")
    batch_wait_seconds: float = setting(0.002, "speed", ge=0, description="how long a request waits for others to join it")
    max_rows: int = setting(256, "speed", ge=1, description="rows of one request")
    max_body_bytes: int = setting(1_000_000, "speed", ge=1, description="size of a request's body")
    max_waiting: int = setting(512, "speed", ge=1, description="requests under way; more are answered 503")
    timeout_seconds: float = setting(60, "speed", gt=0, description="longest time to an answer; later it is 503")
