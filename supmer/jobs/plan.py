"""Work out what a run needs on given GPUs: memory, traffic, FLOPs, least time. Needs no GPU, no weights and no network.

    supmer plan --config flan_t5_xl --gpus 8 --gpu-memory 24GiB

Numbers may carry units: 24GiB, 25GB (a second), 120T (FLOP/s). Nothing is trained. Times are lower bounds.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from rich.console import Console

from supmer.cli import Job
from supmer.config import Config
from supmer.planning.hardware import Hardware, parse_count, parse_units


def job(config: Config, arguments: argparse.Namespace) -> None:
    """Print the plan, and write the plot and the Markdown page where asked for."""
    from supmer.planning.report import Report, check_format  # here, so that --help and a misspelt setting answer at once

    hardware = Hardware(
        memory=int(parse_units("--gpu-memory", arguments.gpu_memory)),
        reserve=int(parse_units("--reserve", arguments.reserve)),
        flops=parse_units("--flops", arguments.flops),
        bandwidth=parse_units("--bandwidth", arguments.bandwidth),
        network=parse_units("--network", arguments.network),
        gpus_per_node=parse_count("--gpus-per-node", arguments.gpus_per_node),
        latency=parse_units("--latency", arguments.latency),
    )
    gpus, most = parse_count("--gpus", arguments.gpus), parse_count("--max-gpus", arguments.max_gpus)
    if arguments.plot:
        check_format(Path(arguments.plot))
    report = Report(config, hardware, gpus, most, shape=arguments.shape, row_length=arguments.row_length)
    report.print(Console())
    if arguments.plot:
        report.draw(Path(arguments.plot))
    if arguments.markdown:
        Path(arguments.markdown).write_text(report.markdown(shlex.join(["supmer", "plan", *sys.argv[1:]])))


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add options whose defaults are those of 24 GB cards in nodes of 8 on PCI Express and 100 Gbit/s."""
    parser.add_argument("--gpus", default="8", help="GPUs, one worker each (8)")
    parser.add_argument("--max-gpus", default="64", help="the sweep doubles GPUs from 1 up to this (64)")
    parser.add_argument("--gpu-memory", default="24GiB", help="memory of one GPU (24GiB)")
    parser.add_argument("--reserve", default="2GiB", help="of it, kept free for CUDA, NCCL and fragments (2GiB)")
    parser.add_argument("--flops", default="120T", help="FLOP/s of one GPU (120T)")
    parser.add_argument("--bandwidth", default="25GB", help="bytes/s into a GPU from its node's others (25GB)")
    parser.add_argument("--network", default="12.5GB", help="bytes/s into a node from other nodes (12.5GB)")
    parser.add_argument("--gpus-per-node", default="8", help="GPUs of one node (8)")
    parser.add_argument("--latency", default="2e-5", help="seconds a collective takes per doubling of ranks (2e-5)")
    parser.add_argument("--row-length", type=int, help="mean encoder positions of a row (tasks.max_length, the worst case)")
    parser.add_argument("--shape", help="known model name, config.json or folder to plan for, in place of backbone.name")
    parser.add_argument("--plot", metavar="FILE", help="draw the sweep (.png, .svg, .pdf)")
    parser.add_argument("--markdown", metavar="FILE", help="write the tables as a Markdown page")


JOB = Job(__doc__, job, add_options)
