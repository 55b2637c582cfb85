"""The main job under Ray Train: worker loop, checkpoints, progress, report."""
