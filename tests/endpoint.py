"""An endpoint in this process: the front and a replica as they are, behind a real HTTP server, without Ray between."""

from __future__ import annotations

import asyncio
import json
import threading
import urllib.error
import urllib.request
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from starlette.requests import Request

from supmer.config import Config, ServeConfig
from supmer.serve.front import TOKEN_VARIABLE, Front
from supmer.serve.replica import Answered, Asked, Replica
from supmer.serve.tasks import TaskFolder, put_runs

TOKEN = "only-for-this-test"


@dataclass
class Client:
    """Sends requests to an endpoint and returns status, body and headers."""

    url: str

    def send(self, method: str, path: str, body: object = None, token: str | None = None) -> tuple[int, Any, dict[str, str]]:
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=100) as response:
                return response.status, _parsed(response.read()), dict(response.headers)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, _parsed(error.read()), dict(error.headers)

    def predict(self, task: object, rows: object, **more: object) -> tuple[int, Any]:
        status, body, _ = self.send("POST", "/predict", {"task": task, "rows": rows, **more})
        return status, body


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return body.decode()


class Here:
    """Calls a replica as a handle of Ray Serve does; `failures` are raised by the next calls."""

    def __init__(self, replica: Replica) -> None:
        self.answer, self.replica = self, replica
        self.failures: list[Exception] = []
        self.lock = asyncio.Lock()

    def remote(self, asked: Asked) -> Awaitable[Answered]:
        return self._answer(asked)

    async def _answer(self, asked: Asked) -> Answered:
        if self.failures:
            raise self.failures.pop()
        async with self.lock:  # Ray Serve's batches come one at a time too
            [answered] = await asyncio.to_thread(self.replica.compute, [asked])
        return answered


@dataclass
class Endpoint:
    """A running endpoint and its parts."""

    client: Client
    front: Front
    handle: Here
    folder: Path


@contextmanager
def running_endpoint(run: Config, folder: Path) -> Iterator[Endpoint]:
    """Serve the prompts of a run, from a folder for them."""
    settings = ServeConfig(max_rows=300, max_body_bytes=200_000, timeout_seconds=20)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(TOKEN_VARIABLE, TOKEN)
        tasks = put_runs(TaskFolder(str(folder)), [run.run_dir])
        replica = Replica(settings, tasks[0].definition.backbone, str(folder))
        handle, parts, ready = Here(replica), [], threading.Event()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            response = await parts[0](Request(scope, receive))
            await response(scope, receive, send)

        async def serve() -> None:
            parts.append(Front(settings, str(folder), {tasks[0].backbone: handle}))  # type: ignore[dict-item]
            ready.set()
            await server.serve()

        server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", lifespan="off"))
        thread = threading.Thread(target=lambda: asyncio.run(serve()))
        thread.start()
        ready.wait(60)
        while not server.started:
            thread.join(0.05)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield Endpoint(Client(f"http://127.0.0.1:{port}"), parts[0], handle, folder)
        server.should_exit = True
        thread.join()
