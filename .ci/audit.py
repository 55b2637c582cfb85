"""Ask OSV (https://osv.dev) whether a version that `constraints.txt` pins has a known vulnerability.

Ends with 1 if so. Where the service does not answer, as on a machine without network, nothing is known and nothing fails:
one line says so.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

CONSTRAINTS = Path(__file__).resolve().parents[1] / "constraints.txt"
SERVICE = "https://api.osv.dev/v1/query"

ALLOWED: dict[str, str] = {}
"""Vulnerabilities that do not concern this project, by the id that the audit prints, each with the reason."""

SECONDS_PER_REQUEST, SECONDS_IN_ALL = 5, 180
SIGNS_OF_NO_SERVICE = ("requests.exceptions.", "Could not connect", "ServiceError")
"""In what pip-audit leaves on stderr; everything else that stops it is a mistake of ours."""


class NoServiceError(Exception):
    """The service did not answer, or not as it should."""


def audit(constraints: Path = CONSTRAINTS, service: str = SERVICE, allowed: Mapping[str, str] = ALLOWED) -> int:
    """Print what is found, one line for each vulnerability, and return the exit code."""
    try:
        packages = query(constraints, service)
    except NoServiceError:
        print(f"audit: skipped, {service} does not answer")
        return 0
    found = [line for ids, line in vulnerabilities(packages) if not ids & set(allowed)]
    for line in found:
        print(f"audit: {line}")
    print(f"audit: {len(packages)} packages of {constraints.name}, {len(found)} known vulnerabilities that are not allowed")
    return 1 if found else 0


def query(constraints: Path, service: str) -> list[dict[str, Any]]:
    """Return pip-audit's findings, one for each package that a file pins.

    Raises:
        NoServiceError: the service does not answer.
        RuntimeError: pip-audit itself failed.
    """
    command = [sys.executable, "-m", "pip_audit", "--requirement", str(constraints), "--no-deps", "--disable-pip"]
    command += ["--vulnerability-service", "osv", "--osv-url", service, "--timeout", str(SECONDS_PER_REQUEST)]
    command += ["--format", "json", "--aliases", "on", "--progress-spinner", "off"]
    try:
        ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=SECONDS_IN_ALL)
    except subprocess.TimeoutExpired as error:
        raise NoServiceError from error
    if ended.stdout.startswith("{"):
        packages: list[dict[str, Any]] = json.loads(ended.stdout)["dependencies"]
        return packages
    if any(sign in ended.stderr for sign in SIGNS_OF_NO_SERVICE):
        raise NoServiceError
    raise RuntimeError(f"pip-audit failed: {ended.stderr}")


def vulnerabilities(packages: list[dict[str, Any]]) -> Iterator[tuple[set[str], str]]:
    """Yield the ids of each vulnerability, aliases included, and the line that tells of it."""
    for package in packages:
        for found in package.get("vulns", []):
            fixed = ", ".join(found["fix_versions"]) or "no version"
            yield (
                {found["id"], *found["aliases"]},
                f"{package['name']} {package['version']}: {found['id']}, mended in {fixed}",
            )


if __name__ == "__main__":
    sys.exit(audit())
