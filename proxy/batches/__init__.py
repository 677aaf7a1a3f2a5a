"""Files and batches: requests by the thousand, run in the background by the same engine."""
