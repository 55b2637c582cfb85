"""A rank that stands still ends with an error that says where every rank was, within the set time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from supmer.train.hang import EXIT_CODE

RANK = """
import sys, time, torch
from torch import distributed
from supmer.meta.group import TorchGroup
from supmer.train.hang import HangWatch

rank, file = int(sys.argv[1]), sys.argv[2]
distributed.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
group = TorchGroup(torch.device("cpu"))

def fall_asleep():
    time.sleep(600)

with HangWatch(5, lambda text: print(text, flush=True)) as watch:
    for step in range(5):
        if rank == 1 and step == 3:
            fall_asleep()
        group.all_reduce_sum(torch.ones(2))
        watch.beat()
        time.sleep(0.5)
"""


def test_collective_that_never_returns_ends_and_says_where_each_rank_was(tmp_path: Path) -> None:
    ranks = [
        subprocess.Popen([sys.executable, "-c", RANK, str(rank), str(tmp_path / "meet")], stdout=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    told = [rank.communicate(timeout=300)[0] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [EXIT_CODE, EXIT_CODE]
    assert told[0].startswith("nothing was finished for 5 s, in all_reduce (distributed_c10d.py:")
    assert "all_reduce_sum (group.py:" in told[0]
    assert told[1].startswith("nothing was finished for 5 s, in fall_asleep (")
