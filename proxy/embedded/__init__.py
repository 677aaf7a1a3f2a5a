"""The embedded model at work: one batch in one thread, in a server or inside the proxy."""
