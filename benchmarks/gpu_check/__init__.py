"""The sections of `benchmarks/gpu.py`. They need torch, transformers, numpy, safetensors, pydantic and this repository."""
