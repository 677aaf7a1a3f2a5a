"""Schemathesis: requests made from the published description, good ones and bad ones."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
)


def _described(url: str, routes: list[str]) -> Path:
    """Write down the description, with routes that there are: nobody guesses their names."""
    with urllib.request.urlopen(f"{url}/openapi.json") as page:
        found = json.load(page)
    for schema in found["components"]["schemas"].values():
        if "model" in schema.get("properties", {}):
            schema["properties"]["model"] = {"enum": routes}
    # To a deadline of no time at all the right answer is a 504.
    options = found["components"]["schemas"]["SamplewiseOptions"]["properties"]
    options["deadline_s"]["minimum"] = 30
    file = Path("openapi.json")
    file.write_text(json.dumps(found))
    return file.absolute()


def explore(ask: Any) -> Any:
    """Run it; return its exit status and the end of what it said."""
    url = ask["url"].removesuffix("/v1")
    program = str(Path(sys.executable).parent / "schemathesis")
    command = [program, "run", str(_described(url, ask["routes"])), "--url", url, "--no-color"]
    options = ["--checks", ",".join(CHECKS), "--max-examples", str(ask["examples"])]
    options += ["--phases", "coverage,fuzzing", "--generation-deterministic", "--warnings", "off"]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    return {"status": done.returncode, "said": (done.stdout + done.stderr)[-8000:]}
