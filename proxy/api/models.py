"""`GET /v1/models` and `/v1/models/{id}`: the routes, as models."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from samplewise.policies.price import usd
from samplewise.proxy.api.replies import json_reply
from samplewise.proxy.errors import RequestError
from samplewise.proxy.job import Route
from samplewise.proxy.jsontext import encode
from samplewise.proxy.service import Service

__all__ = ["list_models", "show_model"]

_MTOK = 1_000_000


def list_models(service: Service, authorization: str | None) -> Response:
    """Return every route that the client may use as a model object.

    Raises:
        RequestError: its key is wrong, or missing (401).
    """
    key = service.guard.admit(authorization)
    models = [_model(route) for route in service.routes_of(key).values()]
    return json_reply(encode({"object": "list", "data": models}))


def show_model(service: Service, name: str, authorization: str | None) -> Response:
    """Return one route as a model object.

    Raises:
        RequestError: its key is wrong or missing (401), or there is no such route for it (404).
    """
    routes = service.routes_of(service.guard.admit(authorization))
    if name not in routes:
        raise RequestError(
            f"there is no route {name[:100]!r}", status=404, code="model_not_found", param="model"
        )
    return json_reply(encode(_model(routes[name])))


def _model(route: Route) -> dict[str, Any]:
    prices = {
        name: {
            "input_usd_per_mtok": usd(upstream.price.prompt_pico * _MTOK // 1000),
            "output_usd_per_mtok": usd(upstream.price.completion_pico * _MTOK // 1000),
        }
        for name, upstream in route.upstreams.items()
    }
    return {
        "id": route.name,
        "object": "model",
        "created": 0,
        "owned_by": "samplewise",
        "description": route.description,
        "samplewise": {
            "policy": route.policy_name,
            "samples_at_most": route.policy.needs.max_samples,
            "policies": {
                name: {"policy": its.type, "samples_at_most": its.policy.needs.max_samples}
                for name, its in route.policies.items()
            },
            "backends": prices,
            "verifiers": [check.name for check in route.checks],
            "limit_usd": None if route.limit.nano is None else usd(route.limit.nano),
        },
    }
