"""Two places where an operator's function can run: worker processes, or the event loop."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from samplewise.verifiers.base import VerifierError, VerifierSetupError
from samplewise.verifiers.plugin_worker import accepted, load
from samplewise.verifiers.pool import WorkerPool

__all__ = ["PLUGIN_TARGET", "LoopRunner", "ProcessRunner", "Runner"]

PLUGIN_TARGET = "samplewise.verifiers.plugin_worker:call"


class Runner(Protocol):
    """Calls a function by its "module:function" name."""

    async def call(self, function: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Return what the function returns; keyword arguments it does not take are left out.

        Raises:
            VerifierError: `timeout`, `crash` (whatever it raised), `protocol` or `unavailable`.
        """
        ...

    async def open(self) -> None:
        """Load the functions; raises `VerifierSetupError` when one cannot be loaded."""
        ...

    async def close(self) -> None:
        """Stop what was started."""
        ...


@dataclass(frozen=True, slots=True)
class ProcessRunner:
    """Runs functions in a pool of `PLUGIN_TARGET`: a hang or a crash costs one worker."""

    pool: WorkerPool

    async def call(self, function: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Return what the function returns, as JSON."""
        reply = await self.pool.call({"function": function, "args": args, "kwargs": kwargs})
        if "unfit" in reply:
            raise VerifierError(f"the result is not JSON: {reply['unfit']}", reason="protocol")
        return reply["value"]

    async def open(self) -> None:
        """Start the workers."""
        await self.pool.open()

    async def close(self) -> None:
        """Stop the workers."""
        await self.pool.close()


@dataclass(frozen=True, slots=True)
class LoopRunner:
    """Awaits `async def` functions on the event loop, which they must never hold up."""

    functions: Mapping[str, Callable[..., Any]]
    timeout_s: float

    @classmethod
    def load(cls, names: Iterable[str], timeout_s: float) -> LoopRunner:
        """Import the functions into this process.

        Raises:
            VerifierSetupError: one cannot be imported, or is no `async def`.
        """
        functions = {}
        for name in names:
            try:
                functions[name] = load(name)
            except (ImportError, AttributeError) as error:
                raise VerifierSetupError(f"{name}: cannot load: {error}") from error
            if not inspect.iscoroutinefunction(functions[name]):
                raise VerifierSetupError(f"{name}: isolation `async` needs an async def")
        return cls(functions, timeout_s)

    async def call(self, function: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Return what the function returns."""
        found = self.functions[function]
        # A copy, as a process would get it: the function cannot change what others see.
        args, kwargs = msgspec.json.decode(msgspec.json.encode((args, kwargs)))
        try:
            async with asyncio.timeout(self.timeout_s):
                # Not `await found(...)`: this way an exception of the plug-in is a value.
                results: tuple[Any] = await asyncio.gather(
                    found(*args, **accepted(found, kwargs)), return_exceptions=True
                )
        except TimeoutError:
            raise VerifierError(f"no result within {self.timeout_s} s", reason="timeout") from None
        except TypeError as error:
            raise VerifierError(f"{function}: {error}", reason="crash") from error
        (result,) = results
        if isinstance(result, BaseException):
            raise VerifierError(f"{type(result).__name__}: {result}", reason="crash") from result
        return result

    async def open(self) -> None:
        """Do nothing: the functions are loaded."""

    async def close(self) -> None:
        """Do nothing."""
