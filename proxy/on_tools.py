"""What a route makes of turns that call tools, where it does not just pass the first one on."""

from __future__ import annotations

from collections.abc import Mapping

from samplewise.proxy.checks_base import Check
from samplewise.proxy.config_routes import RouteSettings
from samplewise.proxy.config_verifiers import ToolCallSettings, VerifierSettings
from samplewise.verifiers.tool_votes import ToolVotes

__all__ = ["implied_verifiers", "tool_check"]

# With a space, so that no verifier of the configuration can have this name.
_NAME = "tool calls"


def implied_verifiers(routes: Mapping[str, RouteSettings]) -> dict[str, VerifierSettings]:
    """Return the verifier that routes with `on_tools: verify` need and may not name themselves."""
    if any(route.on_tools == "verify" for route in routes.values()):
        return {_NAME: ToolCallSettings(type="tool_call")}
    return {}


def tool_check(settings: RouteSettings, checks: Mapping[str, Check]) -> Check | None:
    """Return what reads the votes of tool-call turns and, with `verify`, judges them.

    A `tool_call` verifier that the route names itself comes first. None where turns pass through.
    """
    if settings.on_tools == "passthrough":
        return None
    from samplewise.verifiers.tool_call import ToolCalls

    own = (checks[name] for name in settings.verifiers)
    found = next((check for check in own if isinstance(check.verifier, ToolCalls)), None)
    if found is not None:
        return found
    if settings.on_tools == "verify":
        return checks[_NAME]
    return Check(name=_NAME, verifier=ToolVotes(name=_NAME), required=False)
