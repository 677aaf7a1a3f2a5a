"""Verifiers: each tells whether one sample answers its task."""

# In the checkout's root `import verifiers` would otherwise load a second copy of these modules.
if __name__ != "samplewise.verifiers":
    raise ImportError("import samplewise.verifiers")
