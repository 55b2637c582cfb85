"""What the endpoint answers, to right requests and to all others; the front and a replica run here, without Ray between."""

from __future__ import annotations

import json
import random
import shutil
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from endpoint import TOKEN, Endpoint
from ray.exceptions import RayActorError
from scipy.special import softmax

from supmer.config import Config
from supmer.fewshot.results import Results

Rows = dict[str, list[dict[str, Any]]]
FIELDS = ("first", "second")


def fields(row: dict[str, Any]) -> dict[str, str]:
    return {name: row[name] for name in FIELDS}


def best_details(tuned_run: Config, task: str) -> dict[str, Any]:
    """Return the details of the cell that is served: the best on dev that left a prompt."""
    records = [r for r in Results(tuned_run.run_dir).records if r["task"] == task and r["method"] != "zero_shot"]
    best = max(records, key=lambda record: record["dev_score"])
    folder = Path(tuned_run.run_dir) / "fewshot" / f"{task}.{best['method']}.k4.pattern0.seed0"
    return json.loads((folder / "details.json").read_text())  # type: ignore[no-any-return]


@pytest.mark.parametrize("task", ["colour", "place"])
def test_test_rows_get_the_scores_of_the_cell(tuned_run: Config, test_rows: Rows, endpoint: Endpoint, task: str) -> None:
    details = best_details(tuned_run, task)
    status, body = endpoint.client.predict(task, [fields(row) for row in test_rows[task]])
    assert status == 200
    words, expected = details["record"]["label_words"], softmax(np.asarray(details["scores"]), axis=1)
    assert body["labels"] == [words[index] for index in expected.argmax(axis=1)]
    found = [[row[word] for word in words] for row in body["scores"]]
    np.testing.assert_allclose(found, expected, atol=1e-5, rtol=0)


def test_requests_of_all_tasks_at_once_get_the_answers_that_they_get_alone(test_rows: Rows, endpoint: Endpoint) -> None:
    asked = [(task, [fields(row) for row in test_rows[task][n : n + 1 + n % 3]]) for n in range(30) for task in test_rows]
    alone = [endpoint.client.predict(*request)[1] for request in asked]
    with ThreadPoolExecutor(16) as pool:
        together = list(pool.map(lambda request: endpoint.client.predict(*request), asked))
    for (status, found), expected in zip(together, alone, strict=True):
        assert status == 200 and found["labels"] == expected["labels"]
        for row, other in zip(found["scores"], expected["scores"], strict=True):
            assert row == pytest.approx(other, abs=1e-5)


def test_tasks_and_health_are_listed(endpoint: Endpoint) -> None:
    status, body, _ = endpoint.client.send("GET", "/tasks")
    assert status == 200 and [task["task"] for task in body["tasks"]] == ["colour", "place"]
    assert body["tasks"][0] | {"backbone": ""} == {
        "task": "colour",
        "fields": ["first", "second"],
        "labels": ["bad", "good"],
        "pattern": "{first} and {second} It was <X> .",
        "backbone": "",
    }
    assert endpoint.client.send("GET", "/healthz")[:2] == (200, {"status": "ok", "tasks": 2})
    assert endpoint.client.predict("colour", []) == (200, {"labels": [], "scores": []})


GOOD = {"first": "a river", "second": "a stone"}


@pytest.mark.parametrize(
    ("body", "status", "expected"),
    [
        ({"task": "colours", "rows": [GOOD]}, 404, {"error": "no task 'colours'", "tasks": ["colour", "place"]}),
        ({"task": "\ud800", "rows": []}, 404, {"tasks": ["colour", "place"]}),
        ({"task": ["colour"], "rows": [GOOD]}, 422, {"field": "task"}),
        ({"rows": [GOOD]}, 422, {"error": "'task' is missing", "field": "task"}),
        ({"task": "colour", "rows": [GOOD], "rowz": 1}, 422, {"field": "rowz"}),
        ({"task": "colour", "rows": GOOD}, 422, {"field": "rows"}),
        ({"task": "colour", "rows": [GOOD, "a"]}, 422, {"field": "rows", "row": 1}),
        ({"task": "colour", "rows": [GOOD, {"first": "a"}]}, 422, {"field": "second", "row": 1}),
        ({"task": "colour", "rows": [{**GOOD, "third": "c"}]}, 422, {"field": "third", "row": 0}),
        ({"task": "colour", "rows": [{**GOOD, "second": None}]}, 422, {"field": "second", "row": 0}),
        ({"task": "colour", "rows": [{**GOOD, "second": 7}]}, 422, {"field": "second", "row": 0}),
        ({"task": "colour", "rows": [{**GOOD, "second": " \n"}]}, 422, {"field": "second", "row": 0}),
        ({"task": "colour", "rows": [{**GOOD, "second": "\udc00"}]}, 422, {"field": "second", "row": 0}),
        ({"task": "colour", "rows": [GOOD] * 301}, 413, {"error": "301 rows, must be at most 300 (serve.max_rows)"}),
        ([1], 422, {}),
        (b"", 400, {}),
        (b'{"task": "colour", "rows"', 400, {}),
        (b"\xff\xfe{", 400, {}),
        (b"[" * 100_000, 400, {}),
        (b'{"task": ' + b"9" * 10_000 + b"}", 400, {}),
        (b" " * 200_001, 413, {"error": "the body must have at most 200,000 bytes (serve.max_body_bytes)"}),
    ],
)
def test_a_bad_request_is_answered_with_what_is_wrong(
    endpoint: Endpoint, body: object, status: int, expected: dict[str, Any]
) -> None:
    found, answer, _ = endpoint.client.send("POST", "/predict", body)
    assert found == status and answer["error"] and expected.items() <= answer.items()


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/nothing", 404), ("GET", "/predict", 405), ("PUT", "/tasks", 405), ("DELETE", "/", 405), ("GET", "/%ff", 404)],
)
def test_other_paths_and_methods_are_refused(endpoint: Endpoint, method: str, path: str, status: int) -> None:
    assert endpoint.client.send(method, path)[0] == status


def test_tasks_come_and_go_with_the_token(tuned_run: Config, test_rows: Rows, endpoint: Endpoint, tmp_path: Path) -> None:
    client, row = endpoint.client, fields(test_rows["place"][0])
    cell = Path(tuned_run.run_dir) / "fewshot" / "place.supmer.k4.pattern0.seed0"
    for token, status in ((None, 401), ("wrong", 401), ("\xe4", 401)):
        assert client.send("POST", "/tasks", {"run": str(cell)}, token)[0] == status
        assert client.send("DELETE", "/tasks/colour", token=token)[0] == status
    assert client.predict("mine", [row])[0] == 404

    status, body, _ = client.send("POST", "/tasks", {"run": str(cell), "name": "mine"}, TOKEN)
    assert status == 201 and [task["task"] for task in body["tasks"]] == ["mine"]
    again = client.send("POST", "/tasks", {"run": tuned_run.run_dir, "cell": cell.name, "name": "mine"}, TOKEN)
    assert again[0] == 201 and again[1] == body
    expected = json.loads((cell / "details.json").read_text())
    found = client.predict("mine", [row])[1]["scores"][0]
    np.testing.assert_allclose(list(found.values()), softmax(expected["scores"][0]), atol=1e-5)

    other = Path(tuned_run.run_dir) / "fewshot" / "colour.supmer.k4.pattern0.seed0"
    status, body, _ = client.send("POST", "/tasks", {"run": str(other), "name": "mine"}, TOKEN)
    assert status == 409 and body["field"] == "name"

    assert client.send("DELETE", "/tasks/mine", token=TOKEN)[0] == 204
    assert client.predict("mine", [row])[0] == 404 and client.send("DELETE", "/tasks/mine", token=TOKEN)[0] == 404
    assert {path.name for path in endpoint.folder.iterdir()} == {"colour", "place"}
    # The next look into the folder drops the prompt from the replica too.
    assert client.send("POST", "/tasks", {"run": str(other), "name": "mine"}, TOKEN)[0] == 201
    assert client.predict("mine", [row])[1]["scores"][0].keys() == {"bad", "good"}
    assert client.send("DELETE", "/tasks/mine", token=TOKEN)[0] == 204


def test_a_prompt_that_cannot_be_served_is_refused(tuned_run: Config, endpoint: Endpoint, tmp_path: Path) -> None:
    client = endpoint.client
    source = Path(tuned_run.run_dir) / "fewshot" / "place.supmer.k4.pattern0.seed0"
    long, other, broken = (Path(shutil.copytree(source, tmp_path / name)) for name in ("long", "other", "broken"))
    definition = json.loads((source / "definition.json").read_text())
    words = {**definition, "task": {**definition["task"], "label_words": ["red river", "red river"]}}
    (long / "definition.json").write_text(json.dumps(words))
    (other / "definition.json").write_text(json.dumps({**definition, "backbone": {"name": "embedded"}}))
    (broken / "prompt.safetensors").write_bytes(b"nothing")
    for body, status in (
        ({"run": str(long), "name": "mine"}, 422),
        ({"run": str(other), "name": "mine"}, 409),
        ({"run": str(broken), "name": "mine"}, 422),
        ({"run": str(tmp_path)}, 422),
        ({"run": str(source), "name": "../up"}, 422),
        ({"run": tuned_run.run_dir, "cell": "nothing"}, 422),
        ({"run": 7}, 422),
        ({}, 422),
    ):
        found, answer, _ = client.send("POST", "/tasks", body, TOKEN)
        assert found == status and answer["error"], body
    assert {path.name for path in endpoint.folder.iterdir()} == {"colour", "place"}


def test_without_a_token_nothing_can_be_changed(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SUPMER_SERVE_TOKEN")
    for token in (None, "", TOKEN):
        assert endpoint.client.send("DELETE", "/tasks/colour", token=token)[0] == 403


def test_a_replica_that_dies_is_asked_again(test_rows: Rows, endpoint: Endpoint) -> None:
    endpoint.handle.failures = [RayActorError(), RayActorError()]
    assert endpoint.client.predict("colour", [fields(test_rows["colour"][0])])[0] == 200
    assert endpoint.handle.failures == []


def test_too_many_at_once_are_to_try_again(endpoint: Endpoint) -> None:
    endpoint.front.waiting = endpoint.front.settings.max_waiting
    try:
        status, body, headers = endpoint.client.send("POST", "/predict", {"task": "colour", "rows": [GOOD]})
    finally:
        endpoint.front.waiting = 0
    assert status == 503 and "serve.max_waiting" in body["error"]
    assert {name.lower(): value for name, value in headers.items()}["retry-after"] == "1"


def test_a_client_that_breaks_off_hurts_nobody(endpoint: Endpoint) -> None:
    host, _, port = endpoint.client.url.removeprefix("http://").partition(":")
    body = json.dumps({"task": "colour", "rows": [GOOD] * 100}).encode()
    head = f"POST /predict HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    for sent in (head[:30], head, head + body[:50], head + body):
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(sent)
    assert endpoint.client.predict("colour", [GOOD])[0] == 200


def mutated(body: bytes, draw: random.Random) -> bytes:
    """Return a body with a few bytes or a whole part of it changed, doubled or gone."""
    for _ in range(draw.randrange(3)):
        start = draw.randrange(len(body))
        end = start + draw.choice([1, 2, 3, 30])
        choice = draw.randrange(4)
        middle = [b"", body[start:end] * 2, bytes(draw.randrange(256) for _ in range(4)), draw.choice(PARTS)][choice]
        body = body[:start] + middle + body[start if choice == 2 else end :]
    return body


PARTS = [b"null", b'"\\ud800"', b"NaN", b"-1e999", b"[[]]", b'{"": 1}', b'"colour"', b"\x00", b"\xc3", b'"rows": []']


def test_no_body_makes_the_endpoint_fail(endpoint: Endpoint, num_mutants: int) -> None:
    draw = random.Random(0)
    body = json.dumps({"task": "place", "rows": [GOOD, {"first": "\u00e4\u4e00", "second": "b\n"}]}).encode()
    statuses = [endpoint.client.send("POST", "/predict", mutated(body, draw))[0] for _ in range(num_mutants)]
    assert set(statuses) <= {200, 400, 404, 422} and len(set(statuses)) >= 3
    assert threading.active_count() < 60
    assert endpoint.client.predict("colour", [GOOD])[0] == 200


def test_the_page_asks_no_other_host(endpoint: Endpoint) -> None:
    status, page, headers = endpoint.client.send("GET", "/")
    assert status == 200 and "text/html" in str(headers) and "<!doctype html>" in page
    assert "http://" not in page and "https://" not in page and "src=" not in page
