"""Evidence on a real language model, SmolLM2-135M-Instruct, in one process that may be stopped at any time."""
