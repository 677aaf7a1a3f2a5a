"""Runs one client: `python runner.py FOLDER`, with the Python of that client's environment.

A request comes in as a line of JSON, what the client saw goes out as one. `FOLDER/check.py` has a
function for each case. An error that it does not expect ends the program with its traceback.
"""

from __future__ import annotations

import json
import os
import runpy
import sys
from pathlib import Path


def main() -> None:
    """Answer requests until there are no more."""
    # Libraries print what they like: standard output is for results alone.
    results = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    program = runpy.run_path(str(Path(sys.argv[1]) / "check.py"))
    for line in sys.stdin:
        ask = json.loads(line)
        print(json.dumps(program[ask["case"]](ask)), file=results, flush=True)


if __name__ == "__main__":
    main()
