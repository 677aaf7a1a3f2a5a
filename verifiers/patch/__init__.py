"""Patches to a repository, against the repository's own tests."""
