"""Attacks, and what they achieve."""
