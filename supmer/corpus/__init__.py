"""Corpus to clusters to task store (METHOD section 1), streamed by Ray Data."""
