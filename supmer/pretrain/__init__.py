"""A small backbone of our own: tokenizer training and span-corruption warm-up from the corpus."""
