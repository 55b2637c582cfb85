"""Where a run or an adapter lies: a folder, a repository of the hub (`hf://user/repo`), or the hub's cache of one."""

from __future__ import annotations

import re
from pathlib import Path

from supmer import storage
from supmer.backbone.hub import HubUnreachableError, only_cached
from supmer.errors import one_line, setting_error

HUB = re.compile(r"hf://(?P<name>[\w.-]+/[\w.-]+?)(?:@(?P<revision>[\w.-]+))?/?")
FILES = ["*.safetensors", "*.json", "*.yaml"]
ASKED = "adapter_config.json"
"""The file by which the hub is asked whether there is such a repository; that one lacks it is no error."""


def local_place(place: str, setting: str) -> str:
    """Return the folder or URI of a place; a repository of the hub is fetched (its prompts, not a model's weights in .bin).

    Args:
        place: a folder, a URI, `hf://user/repo` or `hf://user/repo@revision`, or the folder `models--user--repo` of a cache.
        setting: names the place in errors.

    Raises:
        UserError: there is no such repository, or the hub does not answer and its cache does not have it.
    """
    if place.startswith("hf://"):
        from huggingface_hub import snapshot_download

        found = HUB.fullmatch(place)
        if not found:
            raise setting_error(setting, place, "must be hf://user/repo or hf://user/repo@revision")
        name, revision = found["name"], found["revision"]
        try:
            offline = only_cached(name, revision, ASKED)
            return str(snapshot_download(name, revision=revision, allow_patterns=FILES, local_files_only=bool(offline)))
        except HubUnreachableError as error:
            raise setting_error(setting, place, f"no such repository of the hub ({error})") from error
        except Exception as error:  # the HTTP client's own kinds among them, which change between releases
            raise setting_error(setting, place, f"cannot be fetched ({one_line(error)[:200]})") from error
    snapshots = storage.join(place, "snapshots")
    if "://" in place or not Path(snapshots).is_dir():
        return place
    main = Path(place, "refs", "main")
    commits = sorted(folder.name for folder in Path(snapshots).iterdir() if folder.is_dir())
    chosen = main.read_text().strip() if main.is_file() else commits[0] if len(commits) == 1 else ""
    if chosen not in commits:
        raise setting_error(setting, place, f"must name one of its snapshots: {', '.join(commits) or 'it has none'}")
    return storage.join(snapshots, chosen)
