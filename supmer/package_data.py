"""Where the large files of this package lie: beside its code, or with the installed package.

`ray job submit --working-dir .` sends the code alone (`.rayignore` leaves the weights at home), and Ray puts it before the
installed package, which the image and every laptop have with all its files.
"""

from __future__ import annotations

import json
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from urllib.parse import urlparse
from urllib.request import url2pathname

PACKAGE = Path(__file__).parent


def data_folder(relative: str) -> Path:
    """Return a folder of the package; where there is none at all, the path where it should be.

    In a checkout `configs` lies beside the package; the wheel has it inside.
    """
    places = [PACKAGE, *([PACKAGE.parent] if relative == "configs" else [])]
    with suppress(PackageNotFoundError):  # what pip installed, by copying it or by pointing to it (`--editable`)
        installed = distribution(PACKAGE.name)
        origin = json.loads(installed.read_text("direct_url.json") or "{}")
        is_link = origin.get("dir_info", {}).get("editable")
        folder = url2pathname(urlparse(origin["url"]).path) if is_link else str(installed.locate_file(""))
        places.append(Path(folder, PACKAGE.name))
    return next((place / relative for place in places if (place / relative).is_dir()), PACKAGE / relative)
