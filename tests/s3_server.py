"""A real S3 API on 127.0.0.1 (moto in a process of its own) that checks credentials and stumbles when it is told to.

Buckets: `supmer`, which its user may read and write, and `public`, which the same user may only read. How often requests
fail is set by `S3Server.stumble`: answered by an error, slowly or not in full, or dropped before or after they took effect.
"""

from __future__ import annotations

import json
import os
import random
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server

BUCKET, READ_ONLY_BUCKET = "supmer", "public"
FAULTS = ("error", "slow", "cut", "drop", "lose")
"""`drop`: the connection breaks before the request took effect; `lose`: after it did; `cut`: within the answer."""

ERRORS = {"500 Internal Server Error": "InternalError", "503 Service Unavailable": "SlowDown"}
SLOW_SECONDS = 1.0
CONTROL = "/control"

App = Callable[[dict[str, Any], Any], Iterable[bytes]]


@dataclass(frozen=True)
class S3Server:
    """A running server and the credentials of its user."""

    endpoint: str
    access_key: str
    secret_key: str

    @property
    def environment(self) -> dict[str, str]:
        """The variables by which AWS's tools, and this program, find the service."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def stumble(self, **shares: float) -> Counter[str]:
        """From now on let the given share of requests fail by each of FAULTS; return the counts since the last call."""
        request = urllib.request.Request(self.endpoint + CONTROL, json.dumps(shares).encode(), method="POST")
        with urllib.request.urlopen(request, timeout=30) as answer:
            return Counter(json.load(answer))


@contextmanager
def serving() -> Iterator[S3Server]:
    """Run a server while the block runs."""
    command = [sys.executable, __file__]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    try:
        yield S3Server(**json.loads(process.stdout.readline()))
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()


class Stumbling:
    """Wraps a WSGI application."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._random = random.Random(0)
        self._shares: dict[str, float] = {}
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if environ["PATH_INFO"] == CONTROL:
            return self._control(environ, start_response)
        fault = self._draw()
        if fault == "error":
            return self._error(environ, start_response)
        if fault == "drop":
            return _hang_up(environ)
        if fault == "slow":
            time.sleep(SLOW_SECONDS)
        answer = self._app(environ, start_response)
        if fault == "lose":
            b"".join(answer)
            return _hang_up(environ)
        return _first_half(answer, environ) if fault == "cut" else answer

    def _draw(self) -> str:
        with self._lock:
            kinds = [*self._shares, "none"]
            weights = [*self._shares.values(), 1 - sum(self._shares.values())]
            fault = self._random.choices(kinds, weights)[0]
            self._counts[fault] += 1
        return fault

    def _control(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        shares = json.loads(_body(environ))
        assert set(shares) <= set(FAULTS)
        with self._lock:
            self._shares, counts, self._counts = shares, self._counts, Counter()
        start_response("200 OK", [("Content-Type", "application/json")])
        return [json.dumps(counts).encode()]

    def _error(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        _body(environ)
        with self._lock:
            status = self._random.choice(list(ERRORS))
        start_response(status, [("Content-Type", "application/xml")])
        return [f"<Error><Code>{ERRORS[status]}</Code><Message>please try again</Message></Error>".encode()]


def _body(environ: dict[str, Any]) -> bytes:
    return bytes(environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0)))


def _hang_up(environ: dict[str, Any]) -> list[bytes]:
    environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
    raise ConnectionResetError


def _first_half(answer: Iterable[bytes], environ: dict[str, Any]) -> Iterator[bytes]:
    content = b"".join(answer)
    yield content[: len(content) // 2]
    _hang_up(environ)


def _make_account(endpoint: str) -> tuple[str, str]:
    """Make both buckets and a user with rights on them; return the user's access key and secret key."""
    import boto3

    options = {"endpoint_url": endpoint, "region_name": "us-east-1"}
    storage, people = boto3.client("s3", **options), boto3.client("iam", **options)
    for bucket in (BUCKET, READ_ONLY_BUCKET):
        storage.create_bucket(Bucket=bucket)
    storage.put_object(Bucket=READ_ONLY_BUCKET, Key="corpus/a.txt", Body=b"text")
    statements = [
        {"Effect": "Allow", "Action": ["s3:*"], "Resource": ["*"]},
        {"Effect": "Deny", "Action": ["s3:Put*", "s3:Delete*"], "Resource": [f"arn:aws:s3:::{READ_ONLY_BUCKET}/*"]},
    ]
    policy = json.dumps({"Version": "2012-10-17", "Statement": statements})
    people.create_user(UserName="trainer")
    people.put_user_policy(UserName="trainer", PolicyName="trainer", PolicyDocument=policy)
    key = people.create_access_key(UserName="trainer")["AccessKey"]
    return key["AccessKeyId"], key["SecretAccessKey"]


def main() -> None:
    """Serve on a free port; the first line of the output says where and to whom."""
    from moto import settings

    os.environ.update(AWS_ACCESS_KEY_ID="anyone", AWS_SECRET_ACCESS_KEY="anything")
    app = Stumbling(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=MotoRequestHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    endpoint = f"http://127.0.0.1:{server.server_port}"
    access_key, secret_key = _make_account(endpoint)
    settings.INITIAL_NO_AUTH_ACTION_COUNT = 0  # from here on credentials count
    print(json.dumps({"endpoint": endpoint, "access_key": access_key, "secret_key": secret_key}), flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main()
