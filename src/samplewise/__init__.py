"""Samplewise: an OpenAI-compatible proxy that answers with the best of several samples."""

__version__ = "0.1.0"
