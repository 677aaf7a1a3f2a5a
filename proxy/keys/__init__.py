"""Client keys: who may use the proxy, for which routes, and for how much."""
