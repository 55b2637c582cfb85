"""What the processes of a preparation import: for a small corpus that takes longer than their work."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

from supmer.backbone.load import load_tokenizer
from supmer.config import BackboneConfig

PROGRAM = """
import pickle, sys
import supmer.corpus.embed, supmer.corpus.grouping, supmer.corpus.text
print(pickle.load(sys.stdin.buffer)(["ba de fi"]).input_ids, sys.modules.keys() & {"torch", "matplotlib"})
"""


def test_only_embedding_takes_torch_and_only_drawing_takes_matplotlib(tiny_files: Path) -> None:
    tokenizer = load_tokenizer(BackboneConfig(name=str(tiny_files / "backbone")))
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, input=pickle.dumps(tokenizer), capture_output=True, check=True, timeout=300)
    assert done.stdout.decode().split("\n")[-2] == f"{tokenizer(['ba de fi']).input_ids} set()"
