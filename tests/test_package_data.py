"""Large files of the package, for code that lies elsewhere than they do."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from supmer import package_data


def test_uploaded_code_finds_the_files_of_the_installed_package(tmp_path: Path) -> None:
    source = Path(package_data.__file__)
    (tmp_path / "supmer" / "config").mkdir(parents=True)
    for name in ("__init__.py", "package_data.py"):
        shutil.copy(source.with_name(name), tmp_path / "supmer" / name)
    code = "from supmer.package_data import data_folder; [print(data_folder(name)) for name in ('config', 'tasks', 'none')]"
    command = [sys.executable, "-c", code]
    environment = {"PYTHONPATH": str(tmp_path)}
    run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=True)
    own, installed, missing = map(Path, run.stdout.split())
    assert own == tmp_path / "supmer" / "config"
    assert installed.is_dir() and installed.name == "tasks" and tmp_path not in installed.parents
    assert missing == tmp_path / "supmer" / "none"
