"""The HTTP side of the endpoint: reads and checks requests, passes rows to the replicas, answers.

POST /predict, GET /tasks, POST /tasks, DELETE /tasks/{name}, GET /healthz, GET / (the page). Whatever a client sends gets an
answer with a reason: 400 no JSON, 404 no such task or path, 413 too much, 422 a field that cannot be used, 503 try again.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import os
import time
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any

from ray.exceptions import RayError, RayTaskError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle
from ray.serve.metrics import Counter, Histogram
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, Response

from supmer.config import ServeConfig
from supmer.errors import UserError, users_mistake
from supmer.predict.predictor import find_cell
from supmer.predict.rows import UnusableRowError, read_row
from supmer.serve.replica import Answered, Asked
from supmer.serve.tasks import ServedTask, TaskFolder, cells_of, read_cell

logger = logging.getLogger(__name__)

TOKEN_VARIABLE = "SUPMER_SERVE_TOKEN"
PAGE = Path(__file__).with_name("page.html")
SECONDS_BETWEEN_LOOKS = 1.0
"""The folder of tasks is not read again sooner for a name that was not there."""
PAUSE_SECONDS = 0.1
"""Before a request is sent again whose replica died."""
LATENCIES_MS = [2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 30000]


class RefusalError(Exception):
    """An answer other than 200: its status, why, and what else the body says."""

    def __init__(self, status: int, reason: str, headers: Mapping[str, str] | None = None, **more: object) -> None:
        super().__init__(reason)
        self.response = _json({"error": reason, **more}, status, headers)


class Front:
    """One process that all HTTP proxies pass requests to.

    Args:
        settings: of the endpoint.
        folder: where the tasks lie.
        replicas: handles by key of the backbone.
    """

    def __init__(self, settings: ServeConfig, folder: str, replicas: dict[str, DeploymentHandle]) -> None:
        self.settings = settings
        self.folder = TaskFolder(folder)
        self.replicas = replicas
        self.waiting = 0
        self.changing = asyncio.Lock()
        self.requests = Counter("supmer_requests", description="Requests by task and status.", tag_keys=("task", "status"))
        self.latency = Histogram(
            "supmer_latency_ms", description="Time to an answer.", boundaries=LATENCIES_MS, tag_keys=("task",)
        )
        self.tasks: dict[str, ServedTask] = {}
        self.looked = 0.0
        self._read_folder()

    async def __call__(self, request: Request) -> Response:
        """Answer any request."""
        try:
            return await self._route(request)
        except RefusalError as refusal:
            return refusal.response
        except ClientDisconnect:
            return _json({"error": "the body ended too early"}, 400)
        except Exception as error:
            logger.exception("%s %s failed", request.method, request.url.path)
            told = users_mistake(error)
            return _later(str(told) if told else "this request failed; the log of the endpoint says why").response

    async def _route(self, request: Request) -> Response:
        method, path = request.method, request.url.path
        if method == "HEAD":
            method = "GET"
        match method, path.strip("/").split("/"):
            case "POST", ["predict"]:
                return await self._predict(await self._body(request, {"task", "rows"}))
            case "GET", [""]:
                return HTMLResponse(PAGE.read_bytes())
            case "GET", ["tasks"]:
                await asyncio.to_thread(self._read_folder)
                return _json({"tasks": [_described(task) for _, task in sorted(self.tasks.items())]})
            case "GET", ["healthz"]:
                return _json({"status": "ok", "tasks": len(self.tasks)})
            case "POST", ["tasks"]:
                self._check_token(request)
                return await self._add(await self._body(request, {"run"}, {"cell", "name"}))
            case "DELETE", ["tasks", name]:
                self._check_token(request)
                return await self._remove(name)
        allowed = {"predict": "POST", "": "GET", "tasks": "GET, POST", "healthz": "GET"}.get(path.strip("/"))
        if allowed:
            raise RefusalError(405, f"{path} takes {allowed}", {"Allow": allowed})
        raise RefusalError(404, f"no such path: {path}")

    async def _predict(self, body: dict[str, Any]) -> Response:
        started = time.monotonic()
        task = await self._task(body["task"])
        rows = self._rows(task, body["rows"])
        status = 503
        try:
            answered = await self._answer(task, rows)
            if answered.error:
                status = 404
                self.tasks.pop(task.name, None)
                raise self._unknown(task.name)
            words = task.definition.task.label_words
            scores = [dict(zip(words, row, strict=True)) for row in answered.scores]
            status = 200
            return _json({"labels": answered.labels, "scores": scores})
        finally:
            self.requests.inc(tags={"task": task.name, "status": str(status)})
            self.latency.observe(1000 * (time.monotonic() - started), tags={"task": task.name})

    async def _answer(self, task: ServedTask, rows: list[dict[str, str]]) -> Answered:
        """Ask a replica; another one, or the one that takes its place, where it dies meanwhile."""
        if self.waiting >= self.settings.max_waiting:
            raise _later(f"{self.waiting} requests are waiting already (serve.max_waiting)")
        asked = Asked(task.name, task.digest, rows)
        deadline = time.monotonic() + self.settings.timeout_seconds
        self.waiting += 1
        try:
            while (left := deadline - time.monotonic()) > 0:
                try:
                    response = self.replicas[task.backbone].answer.remote(asked)
                    answered: Answered = await asyncio.wait_for(response, left)
                    return answered
                except asyncio.TimeoutError:
                    break
                except RayTaskError:
                    raise  # a fault of the program, which would only come again
                except (RayError, RayServeException) as error:
                    logger.warning("asking a replica again: %s", type(error).__name__)
                    await asyncio.sleep(PAUSE_SECONDS)
            raise _later(f"no answer within {self.settings.timeout_seconds:g} seconds (serve.timeout_seconds)")
        finally:
            self.waiting -= 1

    async def _add(self, body: dict[str, Any]) -> Response:
        run, cell, name = body["run"], body.get("cell"), body.get("name")
        for field, value in body.items():
            if not isinstance(value, str) or not value:
                raise RefusalError(422, f"{field!r} must be text", field=field)
        async with self.changing:
            try:
                found = await asyncio.to_thread(_cells, run, cell, name)
            except UserError as error:
                raise RefusalError(422, str(error).replace("--", "", 1), field="cell" if cell else "run") from error
            added = []
            for new, folder in found.items():
                try:
                    task, _ = await asyncio.to_thread(read_cell, new, folder)
                except UserError as error:
                    raise RefusalError(422, str(error), field="name" if name else "run") from error
                there = await asyncio.to_thread(self.folder.read, new)
                if there and there.digest != task.digest:
                    raise RefusalError(409, f"task {new} is there already with another prompt", field="name")
                if task.backbone not in self.replicas:
                    backbone = task.definition.backbone.name
                    raise RefusalError(
                        409, f"backbone {backbone} is not loaded; start the endpoint with this run", field="run"
                    )
                added.append((new, folder))
            for new, folder in added:
                task = await asyncio.to_thread(self.folder.add, new, folder)
                taken = await self._answer(task, [])  # a replica loads it and says whether it fits the backbone
                if taken.error:
                    await asyncio.to_thread(self.folder.remove, new)
                    raise RefusalError(422, taken.error, field="run")
                self.tasks[new] = task
                logger.info("task %s added from %s", new, folder)
        return _json({"tasks": [_described(self.tasks[new]) for new, _ in added]}, 201)

    async def _remove(self, name: str) -> Response:
        async with self.changing:
            await self._task(name)
            await asyncio.to_thread(self.folder.remove, name)
            self.tasks.pop(name, None)
            logger.info("task %s removed", name)
        return Response(status_code=204)

    async def _body(self, request: Request, needed: Set[str], optional: Set[str] = frozenset()) -> dict[str, Any]:
        """Read a body of at most so many bytes that is a JSON object with these keys."""
        limit, data = self.settings.max_body_bytes, bytearray()
        async for chunk in request.stream():
            data += chunk
            if len(data) > limit:
                raise RefusalError(413, f"the body must have at most {limit:,} bytes (serve.max_body_bytes)")
        try:
            body = json.loads(data)
        except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError
            raise RefusalError(400, f"the body is no JSON: {type(error).__name__}") from error
        if not isinstance(body, dict):
            raise RefusalError(422, f"the body must be an object with {', '.join(sorted(needed))}")
        for field in sorted(needed - body.keys()):
            raise RefusalError(422, f"{field!r} is missing", field=field)
        for field in sorted(body.keys() - needed - optional):
            raise RefusalError(422, f"{field!r} is not known, must be {', '.join(sorted(needed | optional))}", field=field)
        return body

    async def _task(self, name: object) -> ServedTask:
        if not isinstance(name, str):
            raise RefusalError(422, "'task' must be text", field="task")
        if name not in self.tasks and time.monotonic() - self.looked > SECONDS_BETWEEN_LOOKS:
            await asyncio.to_thread(self._read_folder)
        if name not in self.tasks:
            raise self._unknown(name)
        return self.tasks[name]

    def _unknown(self, name: str) -> RefusalError:
        return RefusalError(404, f"no task {name[:100]!r}", tasks=sorted(self.tasks))

    def _rows(self, task: ServedTask, rows: object) -> list[dict[str, str]]:
        if not isinstance(rows, list):
            raise RefusalError(422, "'rows' must be a list of objects", field="rows")
        if len(rows) > self.settings.max_rows:
            raise RefusalError(413, f"{len(rows)} rows, must be at most {self.settings.max_rows} (serve.max_rows)")
        fields = task.definition.task.fields
        read = []
        for index, row in enumerate(rows):
            if not isinstance(row, dict):
                raise RefusalError(422, f"row {index}: must be an object with {', '.join(fields)}", row=index, field="rows")
            for field in sorted(row.keys() - {*fields}):
                known = ", ".join(fields)
                raise RefusalError(422, f"row {index}: field {field!r} is not one of {known}", row=index, field=field)
            try:
                read.append(dict(read_row(task.definition.task, row).fields))
            except UnusableRowError as error:
                raise RefusalError(422, f"row {index}: {error}", row=index, field=error.field) from error
        return read

    def _check_token(self, request: Request) -> None:
        token = os.environ.get(TOKEN_VARIABLE, "")
        if not token:
            raise RefusalError(403, f"tasks can be changed only where the endpoint was started with {TOKEN_VARIABLE}")
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        if not hmac.compare_digest(given.encode(), token.encode()):
            raise RefusalError(
                401, f"needs the header Authorization: Bearer {TOKEN_VARIABLE}", {"WWW-Authenticate": "Bearer"}
            )

    def _read_folder(self) -> None:
        """Take over what other processes have changed in the folder."""
        self.looked = time.monotonic()
        found = {name: self.tasks.get(name) or self.folder.read(name) for name in self.folder.names()}
        self.tasks = {name: task for name, task in found.items() if task and task.backbone in self.replicas}


def _cells(run: str, cell: str | None, name: str | None) -> dict[str, str]:
    if cell is None:
        return cells_of(f"{name}={run}" if name else run)
    folder = find_cell(run, cell)
    [(task, folder)] = cells_of(folder).items()
    return {name or task: folder}


def _json(value: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    # In ASCII: what a client has sent, and is told again, may hold halves of letters, which UTF-8 has no bytes for.
    return Response(json.dumps(value), status, headers, media_type="application/json")


def _later(reason: str) -> RefusalError:
    return RefusalError(503, reason, {"Retry-After": "1"})


def _described(task: ServedTask) -> dict[str, Any]:
    definition = task.definition
    return {
        "task": task.name,
        "fields": definition.task.fields,
        "labels": definition.task.label_words,
        "pattern": definition.task.patterns[0],
        "backbone": definition.backbone.name,
    }
