"""Uploading an adapter, to a server on this machine that speaks as much of the hub's interface as an upload needs."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest

from supmer.errors import UserError
from supmer.fewshot.peft_adapter import push_to_hub

FILES = {
    "README.md": b"---\nlibrary_name: peft\n---\n# A prompt\n",
    "adapter_config.json": b"{}",
    "weights.bin": b"\x00\xff",
}


class Hub(BaseHTTPRequestHandler):
    """Takes one commit of regular files."""

    uploaded: dict[str, bytes]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        answer = json.dumps(self._answer(body)).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def _answer(self, body: bytes) -> dict[str, Any]:
        address = f"http://127.0.0.1:{self.server.server_address[1]}/me/prompt"
        action = self.path.removeprefix("/api/models/me/prompt/").split("?")[0]
        if action == "preupload/main":
            files = json.loads(body)["files"]
            return {"files": [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in files]}
        if action == "commit/main":
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.uploaded[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            return {"commitUrl": f"{address}/commit/{'0' * 40}", "commitOid": "0" * 40}
        assert action in ("/api/repos/create", "/api/validate-yaml")
        return {"url": address, "warnings": [], "errors": []}

    def log_message(self, *_: object) -> None:
        """Keep the test's output clean."""


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, bytes]]:
    """What has been uploaded to the server that the library takes for the hub."""
    Hub.uploaded = {}
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", f"http://127.0.0.1:{server.server_address[1]}")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield Hub.uploaded
    server.shutdown()
    server.server_close()


def test_the_folder_arrives_whole(hub: dict[str, bytes], tmp_path: Path) -> None:
    for name, content in FILES.items():
        (tmp_path / name).write_bytes(content)
    assert push_to_hub(str(tmp_path), "me/prompt").endswith("/me/prompt")
    assert hub == FILES


@pytest.mark.parametrize("repository", ["me/prompt", "no/such/name"])
def test_an_upload_that_fails_is_told_in_one_line(repository: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(UserError, match=f"--push {repository}: not uploaded") as caught:
        push_to_hub(str(tmp_path), repository)
    assert "\n" not in str(caught.value)
