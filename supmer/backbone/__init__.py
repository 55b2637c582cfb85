"""Loading the frozen language model and its tokenizer from a hub name or a local folder."""
