"""A grader service for the verifier type `webhook`, with the standard library alone.

Passes answers of at most 20 words. Run: WEBHOOK_SECRET=... python examples/webhook_grader.py 9000
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SECRET = os.environ["WEBHOOK_SECRET"].encode()
OLDEST_S = 300


def signed(header: str, body: bytes) -> bool:
    """Say whether the header is a fresh signature of these bytes: `t=UNIX_SECONDS,v1=HEX`."""
    timestamp, _, given = header.removeprefix("t=").partition(",v1=")
    wanted = hmac.new(SECRET, timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()
    if not hmac.compare_digest(wanted.encode(), given.encode()):
        return False
    return abs(time.time() - int(timestamp)) <= OLDEST_S


class Grader(BaseHTTPRequestHandler):
    """Answers POST requests with a verdict."""

    def do_POST(self) -> None:
        """Check the signature of the body as it came, then judge."""
        body = self.rfile.read(int(self.headers["content-length"]))
        if not signed(self.headers.get("x-samplewise-signature", ""), body):
            self.send_error(401)
            return
        words = len(json.loads(body)["sample"]["text"].split())
        verdict = {"status": "pass" if words <= 20 else "fail", "feedback": f"{words} words"}
        reply = json.dumps(verdict).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(reply)))
        self.end_headers()
        self.wfile.write(reply)

    def log_message(self, format: str, *args: object) -> None:
        """Write no access log."""


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Grader)
    print(f"listening on port {server.server_port}", flush=True)
    server.serve_forever()
