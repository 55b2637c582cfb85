"""A decoder-only backbone through the command lines: meta-training, tuning, labelling of rows, export."""

from __future__ import annotations
