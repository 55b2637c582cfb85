"""The audit of dependencies, against a service of vulnerabilities on this machine."""

from __future__ import annotations

import importlib.util
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]
BAD = ("jinja2", "3.1.6")
VULNERABILITY = {
    "id": "GHSA-0000-test",
    "aliases": ["CVE-0000-1"],
    "summary": "escapes",
    "published": "2026-01-01T00:00:00Z",
    "affected": [
        {
            "package": {"name": BAD[0], "ecosystem": "PyPI"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "3.1.7"}]}],
        }
    ],
}


class Service(BaseHTTPRequestHandler):
    """Knows one vulnerability; answers 503 below `/away`."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        is_bad = (asked["package"]["name"], asked["version"]) == BAD
        content = json.dumps({"vulns": [VULNERABILITY]} if is_bad else {}).encode()
        self.send_response(503 if self.path == "/away" else 200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def service() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Service) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("audit", ROOT / ".ci" / "audit.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def constraints(tmp_path: Path) -> Path:
    path = tmp_path / "constraints.txt"
    path.write_text(f"# pins\nclick==8.5.1\n{BAD[0]}=={BAD[1]}\ntomli==2.5.0 ; python_version < '3'\n")
    return path


def test_a_known_vulnerability_fails(
    script: ModuleType, service: str, constraints: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert script.audit(constraints, service) == 1
    out = capsys.readouterr().out
    assert "audit: jinja2 3.1.6: CVE-0000-1, mended in 3.1.7\n" in out
    assert "2 packages of constraints.txt, 1 known vulnerabilities" in out


@pytest.mark.parametrize("allowed", ["GHSA-0000-test", "CVE-0000-1"])
def test_an_allowed_one_does_not(script: ModuleType, service: str, constraints: Path, allowed: str) -> None:
    assert script.audit(constraints, service, {allowed: "it is a test"}) == 0


@pytest.mark.parametrize("place", ["/away", ":1"])
def test_without_the_service_one_line_says_so(
    script: ModuleType, service: str, constraints: Path, place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    url = service + place if place.startswith("/") else f"http://127.0.0.1{place}"
    assert script.audit(constraints, url) == 0
    [line] = capsys.readouterr().out.splitlines()
    assert line == f"audit: skipped, {url} does not answer"


def test_a_mistake_of_ours_is_no_missing_service(script: ModuleType, service: str, tmp_path: Path) -> None:
    (tmp_path / "constraints.txt").write_text("no version at all ==\n")
    with pytest.raises(RuntimeError, match="pip-audit failed"):
        script.audit(tmp_path / "constraints.txt", service)
