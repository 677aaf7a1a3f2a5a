"""A model server that starts as vLLM does, for tests: `python server.py --model M --port P ...`.

Own arguments: `--broken TEXT` says it and ends; `--slow FILE` is not ready before the file is
there. It has a child process, as vLLM has. `POST /crash` ends the server alone, with status 3.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

parser = argparse.ArgumentParser()
for name in ("model", "served-model-name", "host"):
    parser.add_argument(f"--{name}", required=True)
parser.add_argument("--port", type=int, required=True)
parser.add_argument("--broken")
parser.add_argument("--slow", type=Path)
parser.add_argument("--deaf", action="store_true", help="takes no notice of SIGTERM")
options = parser.parse_args()


class Handler(BaseHTTPRequestHandler):
    """Answers every call with the same words."""

    def do_GET(self) -> None:
        """List the model, or tell about the processes."""
        if self.path == "/processes":
            self._say({"pids": [os.getpid(), child.pid], "given": os.environ.get("GIVEN", "")})
        else:
            self._say({"object": "list", "data": [{"id": options.served_model_name}]})

    def do_POST(self) -> None:
        """Answer a chat request, or crash."""
        if self.path == "/crash":
            print("out of memory on the way", file=sys.stderr, flush=True)
            os._exit(3)
        self.rfile.read(int(self.headers["content-length"]))
        message = {"role": "assistant", "content": f"from {os.getpid()}"}
        usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
        choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
        self._say({"object": "chat.completion", "choices": choices, "usage": usage})

    def _say(self, body: Any) -> None:
        data = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


print("loading", options.model, flush=True)
if options.broken:
    sys.exit(f"ValueError: {options.broken}")
if options.deaf:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
while options.slow and not options.slow.exists():
    time.sleep(0.02)


def stop(*_: object) -> None:
    """End the child too, as vLLM does when it is asked to."""
    child.kill()
    os._exit(0)


child = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
if not options.deaf:
    signal.signal(signal.SIGTERM, stop)
ThreadingHTTPServer((options.host, options.port), Handler).serve_forever()
