"""One file per HTTP surface; each is a thin adapter over the one engine."""
