"""What becomes of each case in the checkout that is imported; `benchmarks/cases.py` runs this in a process of its own.

    python benchmarks/case_outcomes.py FOLDER

FOLDER holds ``corpora/``, ``tasks/`` and ``backbones/``. Prints a JSON object of outcomes by case.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

SHOWN = 100

SETTINGS = (
    "backbone.revision=0012345",
    "backbone.revision=12e4567",
    "run.name=007",
    "run.name=1.10",
    "run.name=2024_01_31",
    "corpus.paths=[001,002]",
    "corpus.language=no",
    "corpus.language=klingon",
    "corpus.language=xx",
    "corpus.language=",
    "meta.steps=010",
    "meta.steps=1:30",
    "meta.steps=true",
    "meta.steps=1e3",
    "meta.steps=1_000",
    "fewshot.tasks=[yes,no]",
    "log.trackers=[off]",
)

SECOND_TRY = {"pq_struct": {"text_column": "text.en"}}
"""What the refusal of the first try says."""

IN_ONE_LINE = """
import logging, sys
logging.basicConfig(level=logging.WARNING, format="%(message)s")
logging.getLogger("supmer").setLevel(logging.INFO)
from supmer.errors import UserError
def show(error_type, error, trace):
    if not isinstance(error, UserError):
        return sys.__excepthook__(error_type, error, trace)
    sys.stderr.write(f"error: {error}\\n")
    sys.stderr.flush()
    import os
    os._exit(2)
sys.excepthook = show
"""
LOADS = """
from supmer.config import CorpusConfig
from supmer.corpus.reading import find_files
print(find_files(CorpusConfig(paths=[URI], format="text")))
"""
LOADS_HUB = """
from supmer.config import CorpusConfig
from supmer.corpus.hub import hub_shards
print(hub_shards(CorpusConfig(format="hub", paths=[URI])))
"""
STARTS = """
import ray
from supmer import cli
from supmer.runtime import connect_ray
getattr(cli, "give_home", lambda: None)()
connect_ray()
print(ray.get(ray.put(7)))
"""
SMALL_MEMORY = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs -o size=64m tmpfs /dev/shm && exec "$@"', "sh"]


def outcome_of_corpus(folder: Path, settings: dict[str, Any]) -> str:
    """Return what a preparation reads of a folder: rows, what is counted, the first texts."""
    from supmer.config import CorpusConfig
    from supmer.corpus.reading import corpus_files
    from supmer.corpus.records import read_records

    try:
        from supmer.readers.skipped import Skipped as Counts
    except ImportError:
        Counts = Counter  # type: ignore[misc,assignment]  # noqa: N806
    config = CorpusConfig.model_validate({"paths": [str(folder)], "text_document": "line", **settings})
    counts = Counts()
    texts = [text for file in corpus_files(config).files for _, text in read_records(file, config, counts)]
    skipped = ", ".join(f"{count} {reason}" for reason, count in counts.items())
    return f"{len(texts)} rows" + (f" ({skipped})" if skipped else "") + f": {' / '.join(texts)!r:.{SHOWN}}"


def outcome_of_excluding(folder: Path) -> str:
    """Return what is read of a folder as `corpus.exclude_tasks`."""
    from supmer.config import CorpusConfig
    from supmer.corpus.contamination import read_excluded

    excluded = read_excluded(CorpusConfig(exclude_tasks=[str(folder)], exclude_words=8))
    return f"read: {sum(map(len, excluded.keys.values()))} runs of words"


def outcome_of_task(file: Path) -> str:
    """Return what a few-shot job reads of a task, and whether the embedded backbone knows its letters."""
    from supmer.fewshot.data import load_rows
    from supmer.fewshot.task import load_task

    task = load_task(str(file))
    rows = load_rows(task, None)
    texts = " / ".join(" ".join(row.fields.values()) for row in rows.train)
    classes = getattr(task.folder, "classes", None)
    known = f", classes {classes}" if classes else ""
    return f"{len(rows.train)} train rows, {len(rows.test)} test rows{known}: {texts!r:.{SHOWN}}"


def outcome_of_letters(file: Path) -> str:
    """Return what the checks before a few-shot job say of a task."""
    try:
        from supmer.fewshot.comparison import prepare_tasks
    except ImportError:
        from supmer.fewshot.run import prepare_tasks  # type: ignore[import-not-found,no-redef]
    prepare_tasks(load([f"fewshot.tasks=[{file}]", "backbone.name=embedded", "fewshot.k=[2]"]))
    return "trained and scored"


def outcome_of_unknown_text(text: str) -> str:
    """Return what becomes of documents of a text under the embedded backbone."""
    from supmer.backbone.load import load_tokenizer
    from supmer.config import BackboneConfig
    from supmer.corpus import checks
    from supmer.corpus.contamination import ExcludedText
    from supmer.corpus.cutting import cut_documents

    tokenizer = load_tokenizer(BackboneConfig(name="embedded"))
    config = load([])
    pieces, counts = cut_documents([(f"a#{row}", text) for row in range(5)], config.corpus, tokenizer, ExcludedText({}))
    if hasattr(checks, "check_known"):
        checks.check_known(config, counts)
    ids = [token for row in pieces["tokens"].to_pylist() for token in row]
    share = ids.count(tokenizer.unk_token_id) / max(len(ids), 1)
    return f"{len(pieces)} sentences kept, {share:.0%} of their tokens unknown; {dict(+counts)}"


def load(overrides: list[str], file: str | None = None) -> Any:
    """Return the configuration of a command line."""
    try:
        from supmer.config.load import load_config
    except ImportError:
        from supmer.cli import load_config  # type: ignore[attr-defined,no-redef]
    return load_config(file, overrides)


def outcome_of_setting(written: str) -> str:
    """Return the value that a setting of the command line has."""
    section, name = written.partition("=")[0].split(".")
    return repr(getattr(getattr(load([written]), section), name))


def outcome_of_quickstart() -> str:
    """Return what is read where the command line names files, and the configuration the documentation of packages."""
    corpus = load(["corpus.paths=[my-texts]"], "configs/quickstart.yaml").corpus
    return f"format {corpus.format}, paths {corpus.paths}, packages {corpus.packages}"


def outcome_of_backbone(folder: Path) -> str:
    """Return what scores a backbone gives for a sentence, after the checks that come before a job."""
    import torch

    from supmer.backbone import load as loading
    from supmer.config import BackboneConfig

    config = BackboneConfig(name=str(folder))
    if hasattr(loading, "check_backbone"):
        loading.check_backbone(config)
    tokenizer, model = loading.load_tokenizer(config), loading.load_backbone(config)
    assert tokenizer("the ochre river", return_offsets_mapping=True)["offset_mapping"]
    start = torch.tensor([[model.config.decoder_start_token_id]])
    scores = model(input_ids=torch.arange(len(tokenizer))[None], decoder_input_ids=start).logits
    return f"scores, {'finite' if scores.isfinite().all() else 'NaN'}"


def outcome_of_command(code: str, environment: dict[str, str | None], wrapper: list[str], user: int | None = None) -> str:
    """Return how a process ended, after how long, and its last line."""
    values = {name: value for name, value in (os.environ | environment).items() if value is not None}
    started = time.monotonic()
    try:
        command = [*wrapper, sys.executable, "-c", IN_ONE_LINE + code]
        done = subprocess.run(command, env=values, capture_output=True, text=True, timeout=180, user=user)
    except subprocess.TimeoutExpired:
        return "no end after 180 s"
    except PermissionError:
        return "not run: this Python is not readable for other users"
    lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    ending = {0: "", 2: "refused: "}.get(done.returncode, f"**exit code {done.returncode}** ")
    first = f"{lines[0]} ... " if len(lines) > 1 and lines[0].startswith("looking for") else ""
    return f"{ending}{first}{lines[-1] if lines else 'no word'} ({time.monotonic() - started:.0f} s)"


def outcome(read: Callable[[], str]) -> str:
    """Return what `read` returns, or the error that a user would see."""
    from supmer.errors import UserError

    try:
        return read()
    except UserError as error:
        return f"refused: {error}"
    except Exception as error:  # what a user would see as a traceback is an outcome here
        return f"**traceback** {type(error).__name__}: {error}"


def cases(folder: Path) -> Iterator[tuple[str, Callable[[], str]]]:
    """Yield the name of each case, and how its outcome is found."""
    for case in sorted((folder / "corpora").iterdir()):
        yield case.name, lambda case=case: outcome_of_corpus(case, {})  # type: ignore[misc]
        if settings := SECOND_TRY.get(case.name):
            yield f"{case.name}, {settings}", lambda case=case, found=settings: outcome_of_corpus(case, found)  # type: ignore[misc]
    excluded = folder / "corpora" / "huge_int_jsonl"
    yield "huge_int_jsonl in corpus.exclude_tasks", lambda: outcome_of_excluding(excluded)
    for file in sorted((folder / "tasks").glob("*/task.yaml")):
        yield f"tasks/{file.parent.name}", lambda file=file: outcome_of_task(file)  # type: ignore[misc]
    for name in ("arabic_rows", "html_entities"):
        file = folder / "tasks" / name / "task.yaml"
        yield f"tasks/{name}, its letters", lambda file=file: outcome_of_letters(file)  # type: ignore[misc]
    yield (
        "corpus in Arabic",
        lambda: outcome_of_unknown_text("\u0643\u062a\u0628 \u0643\u062a\u0627\u0628 \u0642\u0644\u0645. " * 30),
    )
    yield "corpus in Chinese", lambda: outcome_of_unknown_text("\u6211\u4eec\u5728\u8fd9\u91cc\u3002" * 9)
    for written in SETTINGS:
        yield written, lambda written=written: outcome_of_setting(written)  # type: ignore[misc]
    yield "quickstart.yaml corpus.paths=[my-texts]", outcome_of_quickstart
    for case in sorted((folder / "backbones").iterdir()):
        yield f"backbone: {case.name}", lambda case=case: outcome_of_backbone(case)  # type: ignore[misc]
    for uri in ("abfs://container/x", "abfs://c@account.dfs.core.windows.net", "gs://no-such-bucket/x"):
        yield uri, lambda uri=uri: outcome_of_command(LOADS.replace("URI", repr(uri)), {}, [])  # type: ignore[misc]
    # Not offered by any service: the same with and without a network.
    away: dict[str, str | None] = {"HF_ENDPOINT": "http://127.0.0.1:9"}
    local = str(folder / "tasks" / "hub_nameless_label" / "d")
    yield "hub name without network", lambda: outcome_of_command(LOADS_HUB.replace("URI", repr("no-one/nothing")), away, [])
    socks: dict[str, str | None] = away | {"ALL_PROXY": "socks5://127.0.0.1:9"}
    yield (
        "hub name with ALL_PROXY=socks5",
        lambda: outcome_of_command(LOADS_HUB.replace("URI", repr("no-one/nothing")), socks, []),
    )
    yield "local folder with ALL_PROXY=socks5", lambda: outcome_of_command(LOADS_HUB.replace("URI", repr(local)), socks, [])
    long, open_to_all = folder / ("x" * 70), folder / "open"
    long.mkdir(exist_ok=True)
    open_to_all.mkdir(exist_ok=True)
    open_to_all.chmod(0o777)
    yield "TMPDIR of 70 letters", lambda: outcome_of_command(STARTS, {"TMPDIR": str(long), "RAY_TMPDIR": None}, [])
    yield "HOME unset", lambda: outcome_of_command(STARTS, {"HOME": None}, [])
    if os.getuid() == 0:
        nobody: dict[str, str | None] = {"HOME": None, "TMPDIR": str(open_to_all)}
        yield "uid without a passwd entry, no HOME", lambda: outcome_of_command(STARTS, nobody, [], 54321)
        yield "/dev/shm of 64 MB", lambda: outcome_of_command(STARTS, {}, SMALL_MEMORY)


def main() -> None:
    logging.disable(logging.WARNING)
    folder = Path(sys.argv[1])
    found = {}
    for name, read in cases(folder):
        found[name] = outcome(read)
        sys.stderr.write(f"{name}: {found[name]}\n")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
