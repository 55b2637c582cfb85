"""Where the large files of this package lie: beside its code, or with the installed package.

`ray job submit --working-dir .` sends the code alone (`.rayignore` leaves the weights at home), and Ray puts it before the
installed package, which the image and every laptop have with all its files.
"""

from __future__ import annotations

import json
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from urllib.parse import urlparse
from urllib.request import url2pathname

PACKAGE = Path(__file__).parent


def data_folder(relative: str) -> Path:
    """Return a folder of the package; where there is none at all, the path where it should be.

    In a checkout `configs` lies beside the package; the wheel has it inside.
    """
    for package in (PACKAGE, PACKAGE.parent if relative == "configs" else None, _installed_package()):
        if package is not None and (package / relative).is_dir():
            return package / relative
    return PACKAGE / relative


def _installed_package() -> Path | None:
    """Return the folder of the package that pip installed, by copying it or by pointing to it (`--editable`)."""
    try:
        installed = distribution(PACKAGE.name)
    except PackageNotFoundError:
        return None
    origin = json.loads(installed.read_text("direct_url.json") or "{}")
    if origin.get("dir_info", {}).get("editable"):
        return Path(url2pathname(urlparse(origin["url"]).path)) / PACKAGE.name
    return Path(str(installed.locate_file(PACKAGE.name)))
