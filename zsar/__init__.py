"""zsar: zero-shot adversarial robustness of CLIP, the helper package behind the book."""

__version__ = "0.1.0"
