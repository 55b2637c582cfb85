"""What a run needs in memory, traffic and time, worked out without a GPU and without weights."""
