"""Weights and training of the embedded model."""

# In the checkout's root `import models` would otherwise load a second copy of these modules.
if __name__ != "samplewise.models":
    raise ImportError("import samplewise.models")
