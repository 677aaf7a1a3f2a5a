"""The ledger: reservation rows and counters, one file per store."""
