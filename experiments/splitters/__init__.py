"""Which sentence splitter cuts English best."""
