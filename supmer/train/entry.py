"""Where a worker begins; only the driver imports this, to hand it to Ray Train.

Ray's controller holds the function too and has no use for what it leads to, so nothing at the head imports torch.
"""

from __future__ import annotations

from supmer.train.mailbox import Job


def work(arguments: dict[str, Job]) -> bool:
    """Do one rank's part of the job; return whether the last meta-step was reached."""
    from supmer.train.worker import train_worker

    return train_worker(arguments["job"])
