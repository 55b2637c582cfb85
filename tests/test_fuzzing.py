"""Files made by strangers, or damaged: each is read, refused in one line, or skipped and counted.

Many damaged versions of each kind of file (`make faults`: 1,000; those of checkpoints are in `train/test_checkpoint.py`):
nothing crashes, nothing hangs, nothing in them is executed.
"""

from __future__ import annotations

import gzip
import io
import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.ipc as ipc
import pyarrow.parquet as pq
import pytest
import torch
from mutations import mutants, replacements
from safetensors.numpy import save as save_safetensors

from supmer.config import Config, CorpusConfig, RegularizerConfig
from supmer.config.load import load_config
from supmer.corpus.manifest import CENTROIDS, MANIFEST, SCHEMA_VERSION, Manifest, StoredFile, write_manifest
from supmer.corpus.reading import find_files
from supmer.corpus.records import read_records
from supmer.corpus.store import UNIT_SCHEMA, TaskStore
from supmer.corpus.tables import write_table
from supmer.errors import UserError
from supmer.fewshot.published import read_published_prompt, read_published_regularizer
from supmer.fewshot.starting_points import PROMPT_FILE, REGULARIZER_FILE, build_regularizer, read_prompt, read_tensors
from supmer.model.regularizer import GradientRegularizer
from supmer.readers.skipped import Skipped

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
TEXTS = [f"Document {number} speaks of rivers, " * 3 for number in range(20)]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


class Touch:
    """An object that leaves a file behind when it is unpickled carelessly."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[str, str], object], tuple[str, str]]:
        return open, (str(self.path), "w")


def refusal(read: Callable[[], object]) -> str | None:
    """Return what a user is told, None if the file was read; any other error than a user's is one of the program."""
    try:
        read()
    except UserError as error:
        return str(error)
    return None


def test_configurations(tmp_path: Path, num_mutants: int) -> None:
    original = (CONFIGS / "quickstart.yaml").read_bytes()
    path = tmp_path / "config.yaml"
    outcomes: Counter[str] = Counter()
    for content in mutants(original, num_mutants):
        path.write_bytes(content)
        refused = refusal(lambda: load_config(path))
        assert refused is None or "\n" not in refused
        outcomes["refused" if refused else "read"] += 1
    assert min(outcomes["read"], outcomes["refused"]) > num_mutants / 20, outcomes


@pytest.mark.parametrize(
    "content",
    [
        "[" * 50_000,
        "run: {name: !!python/object/apply:os.system [id]}",
        "run: {seed: " + "9" * 5000 + "}",
        "run: {name: '${run.name}'}",
        "base: config.yaml",
        "? {a: b}\n: c",
    ],
    ids=["nested", "object", "digits", "self-reference", "own-base", "odd-key"],
)
def test_hostile_configurations_are_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(content)
    with pytest.raises(UserError):
        load_config(path)


def save_store(folder: Path) -> Path:
    """Write a store of two clusters by hand."""
    rows = [{"document": "d", "position": n, "text": "t", "tokens": [n, n + 1], "elsewhere_position": 0} for n in range(6)]
    files = []
    for cluster in range(2):
        path = f"split=train/cluster={cluster:05d}/part-00000.parquet"
        write_table(str(folder / path), pa.Table.from_pylist(rows, UNIT_SCHEMA), [3, 3])
        files.append(StoredFile(split="train", cluster=cluster, path=path, row_groups=[3, 3]))
    (folder / CENTROIDS).write_bytes(save_safetensors({"centroids": np.zeros((2, 4), np.float32)}))
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        fingerprint="f",
        inputs={"corpus": {"unit": "sentence"}},
        embeddings="",
        counts={"units": 12},
        d_model=4,
        min_cluster_size=2,
        inertia=1.0,
        silhouette=None,
        merged_from=[[0], [1]],
        nearest=[["t"], ["t"]],
        typical_words=[["t"], ["t"]],
        files=files,
    )
    write_manifest(str(folder), manifest)
    return folder


def units(folder: Path) -> list[tuple[object, ...]]:
    """Read all that episodes take from a store."""
    store, rng = TaskStore.open(str(folder)), np.random.default_rng(0)
    drawn = [unit for cluster in store.clusters("train") for unit in store.sample_units("train", cluster, rng, 6)]
    return [(unit.document, unit.position, unit.tokens.tolist(), unit.elsewhere_position) for unit in drawn]


@pytest.mark.parametrize("name", [MANIFEST, CENTROIDS, "split=train/cluster=00001/part-00000.parquet"])
def test_stores(tmp_path: Path, num_mutants: int, name: str) -> None:
    """No damage to a file gives other units than were written, unless the manifest itself asks for them."""
    path = save_store(tmp_path) / name
    original, whole = path.read_bytes(), units(tmp_path)
    outcomes: Counter[str] = Counter()
    for content in mutants(original, num_mutants):
        path.write_bytes(content)
        refused = refusal(lambda: outcomes.update(["same" if units(tmp_path) == whole else "other"]))
        assert refused is None or str(tmp_path) in refused
        outcomes["refused"] += refused is not None
    assert outcomes["refused"] > num_mutants / 4, outcomes
    assert name == MANIFEST or not outcomes["other"], outcomes


def test_a_manifest_that_holds_anything(tmp_path: Path) -> None:
    """Each value in turn replaced by others: no number in it may decide how much memory or time an episode takes."""
    path = save_store(tmp_path) / MANIFEST
    outcomes: Counter[str] = Counter()
    for values in replacements(json.loads(path.read_bytes())):
        path.write_text(json.dumps(values))
        refused = refusal(lambda: units(tmp_path))
        assert refused is None or str(tmp_path) in refused
        outcomes["refused" if refused else "read"] += 1
    assert min(outcomes["read"], outcomes["refused"]) > 50, outcomes


@pytest.mark.parametrize("path", ["../secret.parquet", "/etc/passwd", "a/../../b", "s3://other/b"])
def test_a_manifest_cannot_name_files_outside_of_its_store(tmp_path: Path, path: str) -> None:
    manifest = save_store(tmp_path) / MANIFEST
    values = json.loads(manifest.read_text())
    values["files"][0]["path"] = path
    manifest.write_text(json.dumps(values))
    with pytest.raises(UserError, match="damaged"):
        TaskStore.open(str(tmp_path))


@pytest.mark.parametrize("name", [PROMPT_FILE, REGULARIZER_FILE])
def test_results_of_runs(tmp_path: Path, num_mutants: int, name: str) -> None:
    """Damage to numbers cannot be told from numbers; what is read has the right shape, and a prompt is finite."""
    tensors = GradientRegularizer(8, RegularizerConfig(rank=2)).state_dict()
    if name == PROMPT_FILE:
        tensors = {"prompt": torch.ones(5, 8)}
    original = save_safetensors({key: tensor.numpy() for key, tensor in tensors.items()})
    run, outcomes = str(tmp_path), Counter[str]()

    def read() -> None:
        if name == PROMPT_FILE:
            prompt = read_prompt(run, "fewshot.from_run")
            assert prompt.dim() == 2 and bool(prompt.isfinite().all())
        else:
            build_regularizer(read_tensors(run, name, "fewshot.from_run"), Config(), 8, run)

    for content in mutants(original, num_mutants):
        (tmp_path / name).write_bytes(content)
        refused = refusal(read)
        assert refused is None or run in refused
        outcomes["refused" if refused else "read"] += 1
    assert min(outcomes["read"], outcomes["refused"]) > num_mutants / 20, outcomes


def published() -> Iterator[tuple[str, object, Callable[[str], object]]]:
    yield "prompt", torch.ones(5, 8), read_published_prompt
    state = {f"mlp.layers.{n}.{part}": torch.ones(shape) for n in range(2) for part, shape in LAYER.items()}
    state |= {"mlp.linear_1.weight": torch.ones(3, 8), "mlp.linear_1.bias": torch.ones(3)}
    state |= {"mlp.linear_2.weight": torch.ones(1, 3), "mlp.linear_2.bias": torch.ones(1)}
    yield "regularizer", state, lambda file: read_published_regularizer(file, 8)


LAYER = {"u": (8, 4), "v": (4, 8), "bias": (8,)}


@pytest.mark.parametrize(("content", "read"), [pytest.param(content, read, id=name) for name, content, read in published()])
@pytest.mark.parametrize("zipped", [True, False])
def test_published_files(
    tmp_path: Path, num_mutants: int, content: object, read: Callable[[str], object], zipped: bool
) -> None:
    path = tmp_path / "published.pt"
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    for mutant in mutants(path.read_bytes(), num_mutants):
        path.write_bytes(mutant)
        refused = refusal(lambda: read(str(path)))
        assert refused is None or str(path) in refused


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("hide", [lambda bad: bad, lambda bad: {"mlp.layers.0.u": torch.ones(2, 2), "k": bad}])
def test_a_published_file_that_would_execute_code_is_refused(
    tmp_path: Path, hide: Callable[[object], object], zipped: bool
) -> None:
    path, trace = tmp_path / "published.pt", tmp_path / "executed"
    torch.save(hide(Touch(trace)), path, _use_new_zipfile_serialization=zipped)
    for read in (read_published_prompt, lambda file: read_published_regularizer(file, 2)):
        with pytest.raises(UserError, match="refused"):
            read(str(path))
    assert not trace.exists()


def jsonl() -> bytes:
    return "".join(json.dumps({"text": text, "id": number}) + "\n" for number, text in enumerate(TEXTS)).encode()


def parquet() -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table({"text": TEXTS, "id": list(range(20))}), buffer, row_group_size=7)
    return buffer.getvalue()


def arrow() -> bytes:
    table, buffer = pa.table({"text": TEXTS}), io.BytesIO()
    with ipc.new_stream(buffer, table.schema) as writer:
        writer.write_table(table, max_chunksize=7)
    return buffer.getvalue()


CORPUS_FILES: dict[str, Callable[[], bytes]] = {
    "a.txt": lambda: "\n".join(TEXTS).encode(),
    "a.jsonl": jsonl,
    "a.jsonl.gz": lambda: gzip.compress(jsonl(), mtime=0),
    "a.jsonl.zst": lambda: pa.compress(jsonl(), "zstd", asbytes=True),
    "a.csv": lambda: "".join(f'{n},"{text}"\n' for n, text in enumerate(["text", *TEXTS])).encode(),
    "a.parquet": parquet,
    "a.arrow": arrow,
}


@pytest.mark.parametrize(("name", "make"), CORPUS_FILES.items(), ids=CORPUS_FILES)
def test_corpus_files(tmp_path: Path, num_mutants: int, name: str, make: Callable[[], bytes]) -> None:
    """What is read of a damaged file is text without NUL; what is not is counted."""
    path, config = tmp_path / name, CorpusConfig(paths=[str(tmp_path)], text_column="0" if name == "a.csv" else "text")
    outcomes: Counter[str] = Counter()
    original = make()
    for content in [original, *mutants(original, num_mutants)]:
        path.write_bytes(content)
        skipped = Skipped()
        [file] = find_files(config).files
        for document, text in read_records(file, config, skipped):
            assert document and text.strip() and "\x00" not in text
            outcomes["rows"] += 1
        outcomes["skipped"] += sum(skipped.values())
    assert outcomes["rows"], outcomes
    assert outcomes["skipped"] or name == "a.csv", outcomes
