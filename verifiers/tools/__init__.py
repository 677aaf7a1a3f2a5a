"""Tools of others (compilers, linters, provers, solvers), run on answers inside a sandbox."""
