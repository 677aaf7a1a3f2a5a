"""The service: HTTP in, HTTP out, money."""

# In the checkout's root `import proxy` would otherwise load a second copy of these modules.
if __name__ != "samplewise.proxy":
    raise ImportError("import samplewise.proxy")
