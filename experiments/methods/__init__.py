"""All methods of the few-shot harness side by side, small: see README.md."""
