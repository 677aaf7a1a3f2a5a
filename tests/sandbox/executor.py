"""An executor that speaks SandboxFusion's and Piston's APIs, as a process of its own.

It really runs Python, but keeps nothing apart: for programs of these tests alone. Programs whose
source holds `# FAULT word` are answered as a server would that fails in that way. Run: `python -m
tests.sandbox.executor`; prints its port.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


def _run(source: str, stdin: str, seconds: float) -> tuple[int | None, str, str]:
    """Return exit status (None when time was over), and what was written."""
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-c", source],
            input=stdin.encode(),
            capture_output=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired as over:
        return None, (over.stdout or b"").decode(), (over.stderr or b"").decode()
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def _fusion(body: Any) -> Any:
    code, out, err = _run(body["code"], body["stdin"], body["run_timeout"])
    if "FAULT sandbox" in body["code"]:
        return {"status": "SandboxError", "message": "no worker", "run_result": None}
    run = {
        "status": "TimeLimitExceeded" if code is None else "Finished",
        "execution_time": 0.1,
        "return_code": code,
        "stdout": out,
        "stderr": err,
    }
    status = "Success" if code == 0 else "Failed"
    return {"status": status, "message": "", "compile_result": None, "run_result": run, "files": {}}


def _piston(body: Any) -> Any:
    source = body["files"][0]["content"]
    code, out, err = _run(source, body["stdin"], body["run_timeout"] / 1000)
    run: dict[str, Any] = {"stdout": out, "stderr": err, "output": out + err}
    if "FAULT sandbox" in source:
        run |= {"code": None, "signal": None, "status": "XX", "message": "no worker"}
    elif code is None:
        run |= {"code": None, "signal": "SIGKILL"}
        run |= {} if "FAULT old" in source else {"status": "TO", "message": "Time limit exceeded"}
    elif code < 0:
        run |= {"code": None, "signal": "SIGABRT", "status": "SG"}
    else:
        run |= {"code": code, "signal": None, "status": "RE" if code else None}
    return {"language": "python", "version": "3.11.0", "run": run}


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        fault = re.search(r"# FAULT (\w+)", json.dumps(body))
        what = {"/run_code": _fusion, "/api/v2/execute": _piston}.get(self.path)
        if self.headers["authorization"] != "Bearer k" or what is None:
            self._reply(401, {"message": "no"})
        elif fault is not None and fault[1] == "status":
            self._reply(500, {"message": "broken"})
        elif fault is not None and fault[1] == "words":
            self._reply(200, ["not", "that"])
        else:
            self._reply(200, what(body))

    def _reply(self, status: int, said: Any) -> None:
        data = json.dumps(said).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    print(server.server_address[1], flush=True)
    server.serve_forever()
