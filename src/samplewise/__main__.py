"""`python -m samplewise`: the same as the `samplewise` command."""

from samplewise.proxy.cli import main

if __name__ == "__main__":
    main()
