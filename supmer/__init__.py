"""SUPMER: self-supervised meta-prompt learning with meta-gradient regularization, at scale."""

__version__ = "0.1.0"
