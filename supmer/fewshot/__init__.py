"""Few-shot prompt tuning and its evaluation (METHOD section 7)."""
