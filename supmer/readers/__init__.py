"""Rows of files of any kind, of corpora, of labelled tasks and of what is to be excluded: one set of readers."""
