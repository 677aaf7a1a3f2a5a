"""Rules that say when a vote is decided, one file each. Counts alone; nothing of prices or time."""
