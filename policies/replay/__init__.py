"""Policies on recorded samples, with a simulated clock. Pure: no files, no HTTP, no real time."""
