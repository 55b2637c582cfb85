"""Stands for `supmer` and `python` on the PATH of the shell blocks: the same command, with fewer steps and rows.

small_jobs.py supmer JOB [ARGUMENT ...]
small_jobs.py python [ARGUMENT ...]
"""

from __future__ import annotations

import os
import re
import sys

SMALLER = {
    "metatrain": ["meta.steps=2", "train.validate_every=2", "train.checkpoint_every=2", "train.validation_episodes=1"],
    "prompt-tune": [
        "fewshot.seeds=[0]",
        "fewshot.steps=2",
        "fewshot.eval_every=2",
        "fewshot.max_test_rows=16",
        "fewshot.concurrency=0",
    ],
}
SMALLER["tune"] = [*SMALLER["metatrain"], "tune.num_trials=1", "tune.scheduler=none"]
SMALLER["prepare"] = [
    "clusters.num_clusters=10",
    "corpus.validation_fraction=0.3",
    "tasks.num_support=4",
    "tasks.num_query=4",
]
for job in ("metatrain", "tune", "prompt-tune"):
    SMALLER[job] = [*SMALLER["prepare"], *SMALLER[job]]


def main() -> None:
    name, *arguments = sys.argv[1:]
    script = re.fullmatch(r"pipeline/(\w+)\.py", arguments[0]) if name == "python" else None
    if name == "python" and not script:
        os.execv(sys.executable, [sys.executable, *arguments])
    job, *arguments = [script[1].replace("_", "-") if script else arguments[0], *arguments[1:]]
    smaller = SMALLER.get(job, [])
    if smaller[:1] == SMALLER["prepare"][:1] and not {"my.yaml", "corpus.format=auto", "--list-stores"} & set(arguments):
        smaller = ["corpus.packages=[networkx]", *smaller]
    if "--replay" in arguments:
        arguments[arguments.index("--replay") + 1] = "2"
    program = ["-c", "import sys; sys.argv[0] = 'supmer'; from supmer.jobs.command import main; main()"]
    if script:
        program = [f"pipeline/{script[1]}.py"]
        job_arguments = arguments
    else:
        job_arguments = [job, *arguments]
    command = [sys.executable, *program, *job_arguments, *smaller]
    os.execv(sys.executable, command)


if __name__ == "__main__":
    main()
