"""How the embedded backbone was made: text, tokenizer, a teacher's sentence embeddings, training."""
