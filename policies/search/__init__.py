"""Search over steps: policies that go on from the paths that a step verifier likes."""
