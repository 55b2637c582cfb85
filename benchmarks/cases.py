"""What becomes of inputs of real users: rows, settings, models and surroundings that are broken, or other than expected.

    python benchmarks/cases.py CASES [BEFORE]

Prints a Markdown table of the outcome of each folder of CASES (corpora), of each CASES/tasks/NAME/task.yaml, and of what is
made here: more files, settings, spoiled backbones, surroundings (which start Ray). BEFORE is another checkout of this
repository, whose outcomes stand in a column of their own. What only a test can run names that test.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from case_files import make

ROOT = Path(__file__).resolve().parents[1]
QUERY = "encoder.block.0.layer.0.SelfAttention.q.weight"

TESTS = {
    "export peft, label words that begin with the same token": (
        "tests/pipeline/test_export.py::test_a_card_predicts_as_the_harness_does"
    ),
    "export peft, backbone.tokenizer unlike the backbone's": (
        "tests/pipeline/test_export.py::test_a_card_predicts_as_the_harness_does"
    ),
    "a backbone of NaN in preparation and in a table": (
        "tests/backbone/test_checks.py::test_jobs_refuse_a_backbone_before_ray_starts"
    ),
    "a preparation that skips more than 1%": "tests/corpus/test_damage.py, tests/pipeline/test_prepare.py",
    "MRPC, QQP, MR, SST-2 and TREC as TSV": (
        "tests/readers/test_csv_rows.py::test_real_sentences_as_tsv_come_out_as_they_were"
    ),
}


def write_backbones(folder: Path) -> None:
    """Write a sound backbone with random weights, and spoiled copies of it."""
    sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
    import torch
    from fewshot_material import make_backbone
    from safetensors.torch import load_file, save_file
    from transformers import ByT5Tokenizer

    def weights(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
        def spoil(copy: Path) -> None:
            tensors = load_file(copy / "model.safetensors")
            change(tensors)
            save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})

        return spoil

    def settings(**values: Any) -> Callable[[Path], None]:
        def spoil(copy: Path) -> None:
            found = json.loads((copy / "config.json").read_text()) | values
            (copy / "config.json").write_text(json.dumps({key: value for key, value in found.items() if value is not None}))

        return spoil

    def text(name: str, content: str) -> Callable[[Path], None]:
        return lambda copy: (copy / name).write_text(content) and None

    def byt5(copy: Path) -> None:
        for file in copy.glob("*token*"):
            file.unlink()
        ByT5Tokenizer().save_pretrained(copy)

    def adapter(task_type: str | None) -> Callable[[Path], None]:
        def spoil(copy: Path) -> None:
            (copy / "config.json").unlink()
            (copy / "model.safetensors").rename(copy / "adapter_model.safetensors")
            kind = "PROMPT_TUNING" if task_type else None
            about = {"base_model_name_or_path": "t5-small", "peft_type": kind, "task_type": task_type}
            (copy / "adapter_config.json").write_text(json.dumps(about))

        return spoil

    def prefixed(tensors: dict[str, torch.Tensor]) -> None:
        for name in list(tensors):
            tensors[f"base_model.model.{name}"] = tensors.pop(name)

    spoils: dict[str, Callable[[Path], None]] = {
        "sound": lambda copy: None,
        "weights hold NaN": weights(lambda tensors: tensors[QUERY][1].fill_(torch.nan)),
        "a tensor is lacking": weights(lambda tensors: tensors.pop(QUERY)),
        "a tensor of another shape": weights(lambda tensors: tensors.update({QUERY: torch.zeros(3, 3)})),
        "num_layers is two": settings(num_layers="two"),
        "tokenizer.json of {}": text("tokenizer.json", "{}"),
        "ByT5, no fast tokenizer": byt5,
        "no decoder_start_token_id": settings(decoder_start_token_id=None),
        "fewer embeddings than tokens": lambda copy: (
            settings(vocab_size=150)(copy),
            weights(lambda tensors: tensors.update({"shared.weight": tensors["shared.weight"][:150].clone()}))(copy),
        )[1],
        "peft_298 folder of an adapter": adapter("SEQ_2_SEQ_LM"),
        "peft_662 adapter without types": adapter(None),
        "peft_1932 names begin with base_model.model": weights(prefixed),
    }
    sound = Path(make_backbone(folder / "sound"))
    for name, spoil in spoils.items():
        copy = folder / name
        if copy != sound:
            shutil.copytree(sound, copy)
        spoil(copy)


def run(checkout: Path, folder: Path) -> dict[str, str]:
    """Return the outcomes of a checkout, found in a process of its own."""
    command = [sys.executable, str(Path(__file__).with_name("case_outcomes.py")), str(folder)]
    environment = os.environ | {"PYTHONPATH": str(checkout), "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(command, env=environment, cwd=checkout, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", type=Path, help="folder of cases")
    parser.add_argument("before", type=Path, nargs="?", help="another checkout to compare with")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="cases", dir="/tmp") as temporary:
        folder = Path(temporary)
        folder.chmod(0o755)
        make(folder)
        for case in arguments.cases.iterdir():
            if case.name != "tasks":
                shutil.copytree(case, folder / "corpora" / case.name)
        shutil.copytree(arguments.cases / "tasks", folder / "tasks", dirs_exist_ok=True)
        write_backbones(folder / "backbones")
        checkouts = [path.resolve() for path in (arguments.before, ROOT) if path]
        tables = [run(path, folder) for path in checkouts]
    print("| input |" + " before |" * (len(tables) - 1) + " now |\n|" + "---|" * (len(tables) + 1))
    for name in tables[-1]:
        cells = [" ".join(table.get(name, "").replace("|", "\\|").replace(temporary, "CASES").split()) for table in tables]
        print(f"| `{name}` | {' | '.join(cells)} |")
    for name, test in TESTS.items():
        print(f"| {name} |{' not run |' * (len(tables) - 1)} {test} |")


if __name__ == "__main__":
    main()
