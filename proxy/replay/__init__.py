"""Recorded samples on disk, and what is shown of replays: tables, files, pictures."""
