"""Programs run by an executor elsewhere, over HTTP: SandboxFusion's `/run_code` or Piston's API.

How well programs are kept apart there is that server's business; nothing of it can be tried here.
Source: the projects' own descriptions of `POST /run_code` and `POST /api/v2/execute`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import replace
from time import perf_counter
from typing import Any, Literal

import aiohttp

from samplewise.verifiers.sandbox.base import (
    Limits,
    Outcome,
    Program,
    RunStatus,
    SandboxUnavailable,
)

__all__ = ["RemoteSandbox"]

_MARGIN_S = 30.0  # to be queued and started there
_MOST_BYTES = 4 * 2**20  # beside the output, which JSON can make six times as long
_MB = 2**20
_ENDS: Mapping[str, RunStatus] = {
    "TimeLimitExceeded": RunStatus.TIMEOUT,
    "TO": RunStatus.TIMEOUT,
    "OL": RunStatus.OUTPUT_LIMIT,
    "EL": RunStatus.OUTPUT_LIMIT,
}


class RemoteSandbox:
    """Sends at most `workers` programs at once to `url`, the root of the executor's API.

    `version` is Piston's name for the Python to take. What does not come back, or not as that API
    says, is a `sandbox_error`: it says nothing of the program.
    """

    def __init__(
        self,
        url: str,
        api: Literal["sandbox_fusion", "piston"],
        *,
        key: str | None = None,
        version: str = "*",
        workers: int = 2,
        memory_mb: int = 512,
        output_bytes: int = 2**20,
    ) -> None:
        self._url = url.rstrip("/")
        self._fusion = api == "sandbox_fusion"
        self._headers = {} if key is None else {"authorization": f"Bearer {key}"}
        self._version = version
        self._limits = Limits(memory_mb=memory_mb, memory_by="remote", output_bytes=output_bytes)
        self._slots = asyncio.Semaphore(workers)
        self._http: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        """Make connections possible."""
        if self._http is None:
            self._http = aiohttp.ClientSession(headers=self._headers)

    async def close(self) -> None:
        """Close all connections; may be called twice."""
        if self._http is not None:
            await self._http.close()
            self._http = None

    async def check(self) -> None:
        """Try whether programs run there; raises `SandboxUnavailable`."""
        outcome = await self.run(Program("print(input()[::-1])", b"yes", 10.0))
        if outcome.status is not RunStatus.OK or outcome.stdout.strip() != b"sey":
            said = outcome.detail or outcome.stderr.decode(errors="replace").strip()[-300:]
            raise SandboxUnavailable(f"the executor at {self._url} runs no Python: {said}")

    async def run(self, program: Program) -> Outcome:
        """Run one program there; waits for a free place first."""
        async with self._slots:
            began = perf_counter()
            try:
                answer = await self._post(program)
                outcome = (self._of_fusion if self._fusion else self._of_piston)(answer)
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                outcome = self._failed(f"cannot be reached: {type(error).__name__}: {error}")
            except (ValueError, TypeError, LookupError, AttributeError) as error:
                outcome = self._failed(f"answers what cannot be read: {error!r}"[:300])
            return replace(outcome, wall_ms=(perf_counter() - began) * 1000)

    async def _post(self, program: Program) -> Any:
        if self._http is None:
            raise ValueError("the executor is not open")
        stdin = program.stdin.decode("utf-8")
        path, body = (
            ("/run_code", self._to_fusion(program, stdin))
            if self._fusion
            else ("/api/v2/execute", self._to_piston(program, stdin))
        )
        timeout = aiohttp.ClientTimeout(total=program.wall_s + _MARGIN_S)
        most = 6 * 2 * self._limits.output_bytes + _MOST_BYTES
        async with self._http.post(
            self._url + path, json=body, timeout=timeout, allow_redirects=False
        ) as reply:
            data = bytearray()
            async for chunk in reply.content.iter_chunked(2**16):
                data += chunk
                if len(data) > most:
                    raise ValueError("more than the limit")
            if reply.status != 200:
                raise ValueError(f"status {reply.status}: {bytes(data[:200])!r}")
        return json.loads(data)

    def _to_fusion(self, program: Program, stdin: str) -> Mapping[str, Any]:
        return {
            "code": program.source,
            "language": "python",
            "stdin": stdin,
            "run_timeout": program.wall_s,
            "memory_limit_MB": self._limits.memory_mb,
        }

    def _to_piston(self, program: Program, stdin: str) -> Mapping[str, Any]:
        return {
            "language": "python",
            "version": self._version,
            "files": [{"name": "main.py", "content": program.source}],
            "stdin": stdin,
            "run_timeout": round(program.wall_s * 1000),
            "run_memory_limit": self._limits.memory_mb * _MB,
        }

    def _of_fusion(self, answer: Mapping[str, Any]) -> Outcome:
        run = answer["run_result"]
        if answer["status"] == "SandboxError" or run is None:
            return self._failed(str(answer.get("message") or "it says only SandboxError"))
        if run["status"] not in ("Finished", "TimeLimitExceeded"):
            return self._failed(f"the run ended as {run['status']}")
        return self._ended(_ENDS.get(run["status"]), run["return_code"], None, run)

    def _of_piston(self, answer: Mapping[str, Any]) -> Outcome:
        run = answer["run"]
        status = run.get("status")
        if status == "XX":
            return self._failed(str(run.get("message") or "it says only XX"))
        # Older versions kill what takes too long, and say nothing but the signal.
        killed = run["signal"] == "SIGKILL" and status is None
        stop = RunStatus.TIMEOUT if killed else _ENDS.get(status or "")
        return self._ended(stop, run["code"], run["signal"], run)

    def _ended(
        self, stop: RunStatus | None, code: int | None, signal: str | None, run: Mapping[str, Any]
    ) -> Outcome:
        out, err = (str(run[name]).encode("utf-8", "replace") for name in ("stdout", "stderr"))
        most = self._limits.output_bytes
        if stop is None and max(len(out), len(err)) > most:
            stop = RunStatus.OUTPUT_LIMIT
        if stop is None and (code is None or code < 0 or signal):
            stop = RunStatus.SIGNAL
        return Outcome(
            status=stop or (RunStatus.WRONG_EXIT if code else RunStatus.OK),
            exit_code=code if stop is None else None,
            signal=-code if code is not None and code < 0 else None,
            stdout=out[:most],
            stderr=err[:most],
            limits=self._limits,
        )

    def _failed(self, said: str) -> Outcome:
        detail = f"the executor at {self._url} {said}"
        return Outcome(status=RunStatus.SANDBOX_ERROR, detail=detail, limits=self._limits)
