"""Sweeps under Ray Tune: search spaces, Optuna's proposals, trials that are meta-training runs, and their outcome."""
