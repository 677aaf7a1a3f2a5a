"""Sampling sources: one file per kind."""
