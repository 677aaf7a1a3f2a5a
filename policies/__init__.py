"""Policies: pure decisions about what to sample, what to check and when to stop."""

# In the checkout's root `import policies` would otherwise load a second copy of these modules.
if __name__ != "samplewise.policies":
    raise ImportError("import samplewise.policies")
