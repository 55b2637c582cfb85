"""What was done once: how the embedded backbone was made, the evidence, the choice of a sentence splitter."""
