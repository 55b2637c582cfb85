"""Files in S3, through a real API that checks credentials, fails, stalls and hangs up."""

from __future__ import annotations

import pickle
from collections.abc import Iterator

import numpy as np
import pytest
from fewshot_material import result_of
from s3_server import BUCKET, READ_ONLY_BUCKET, S3Server, serving

from supmer import storage
from supmer.config.load import load_config
from supmer.corpus.reading import find_files
from supmer.errors import UserError
from supmer.fewshot.cells import Cell
from supmer.fewshot.results import Results, read_details
from supmer.sole_job import sole_job
from supmer.storage import StorageError

pytestmark = [pytest.mark.slow]


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with serving() as running:
        yield running


@pytest.fixture(autouse=True)
def environment(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    yield
    server.stumble()


def test_files_are_written_listed_read_and_deleted() -> None:
    folder = f"s3://{BUCKET}/files"
    assert not storage.exists(folder)
    storage.write_bytes(f"{folder}/a/b", b"one")
    storage.write_bytes(f"{folder}/a/b", b"two")
    assert storage.read_bytes(f"{folder}/a/b") == b"two"
    assert [info.path for info in storage.list_files(folder)] == [f"{BUCKET}/files/a/b"]
    storage.delete_folder(folder)
    storage.delete_folder(folder)
    assert storage.list_files(folder) == []


def test_nothing_is_lost_while_the_service_stumbles(server: S3Server) -> None:
    """A quarter of all requests fails in one of five ways; every file is written and read back whole."""
    contents = {f"s3://{BUCKET}/many/{n}": np.random.default_rng(n).bytes(1000 * n) for n in range(40)}
    server.stumble(error=0.1, slow=0.03, cut=0.04, drop=0.04, lose=0.04)
    for uri, content in contents.items():
        storage.write_bytes(uri, content)
    assert {uri: storage.read_bytes(uri) for uri in contents} == contents
    assert len(storage.list_files(f"s3://{BUCKET}/many")) == len(contents)
    counts = server.stumble()
    assert sum(counts.values()) - counts["none"] > 20, counts


@pytest.mark.parametrize("fault", ["error", "cut", "drop", "lose"])
def test_small_objects_are_read_whatever_happens_to_a_tenth_of_the_answers(server: S3Server, fault: str) -> None:
    uri = f"s3://{BUCKET}/small"
    storage.write_bytes(uri, b"x" * 32)
    server.stumble(**{fault: 0.1})
    assert {storage.read_bytes(uri) for _ in range(30)} == {b"x" * 32}
    assert server.stumble()[fault]


def test_a_check_that_cannot_be_made_ends_no_job(server: S3Server) -> None:
    with sole_job(f"s3://{BUCKET}/runs/checked") as check:
        storage.delete_folder(f"s3://{BUCKET}/runs/checked")
        check()


def test_a_file_system_keeps_its_patience_in_other_processes(server: S3Server) -> None:
    filesystem, path = storage.resolve(f"s3://{BUCKET}/sent")
    sent = pickle.dumps(filesystem)
    assert server.secret_key.encode() not in sent
    server.stumble(error=0.5)
    with pickle.loads(sent).open_output_stream(path) as stream:  # noqa: S301
        stream.write(b"x")
    server.stumble()
    assert storage.read_bytes(f"s3://{BUCKET}/sent") == b"x"


def test_a_missing_bucket_is_named(server: S3Server) -> None:
    with pytest.raises(StorageError, match=r"^s3://nowhere/a: cannot be written: there is no such bucket$"):
        storage.write_bytes("s3://nowhere/a", b"")
    with pytest.raises(UserError, match=r"^corpus.paths=s3://nowhere/a: no such bucket$"):
        find_files(load_config(None, ["corpus.paths=[s3://nowhere/a]"]).corpus)


def test_a_bucket_without_the_right_to_write_is_named() -> None:
    assert storage.read_bytes(f"s3://{READ_ONLY_BUCKET}/corpus/a.txt") == b"text"
    with pytest.raises(StorageError, match=r"^s3://public/b: cannot be written: access denied: .*lack this right$"):
        storage.write_bytes(f"s3://{READ_ONLY_BUCKET}/b", b"")


@pytest.mark.parametrize(
    ("variable", "message"),
    [("AWS_ACCESS_KEY_ID", "does not know the access key"), ("AWS_SECRET_ACCESS_KEY", "the secret key is wrong")],
)
def test_wrong_credentials_are_named(variable: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, "WRONGWRONGWRONG")
    uri = f"s3://{BUCKET}/wrong?region=eu-west-{len(variable)}"  # a client of its own, which reads the environment anew
    with pytest.raises(StorageError, match=message):
        storage.write_bytes(uri, b"")
    with pytest.raises(StorageError, match="access denied"):
        storage.exists(uri)


def test_an_unknown_option_is_refused() -> None:
    with pytest.raises(UserError, match="option secret_key is unknown, must be one of endpoint_override, region, scheme"):
        storage.exists(f"s3://{BUCKET}/a?secret_key=x")


def test_few_shot_results_are_kept_in_s3_and_a_later_job_takes_over() -> None:
    config = load_config(None, [f"run.dir=s3://{BUCKET}/runs", "run.name=tuned", "log.trackers=[]"])
    first, second = (result_of(Cell("sst-2", 0, "supmer", seed, 16, seed)) for seed in (1, 2))
    with sole_job(config.run_dir) as is_first:
        record = Results(config.run_dir, is_first).add(first, "key")
        with sole_job(config.run_dir) as is_second:
            Results(config.run_dir, is_second).add(second, "key")
        with pytest.raises(UserError, match=rf"^s3://{BUCKET}/runs/tuned: another job has begun there"):
            Results(config.run_dir, is_first).add(first, "key")
    assert [line["seed"] for line in Results(config.run_dir).records] == [1, 2]
    assert read_details(config.run_dir, record)["labels"] == first.labels
