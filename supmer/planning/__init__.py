"""What a run needs on given hardware: memory, traffic, FLOPs and the least time, worked out from the backbone's shape."""
