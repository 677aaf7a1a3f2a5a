"""What is known of servers and providers that speak the OpenAI dialect: their quirks, as data.

A profile only sets defaults: the configuration says otherwise where it says something, and a probe
or use corrects what is wrong. Sources stand in docs/backends.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from samplewise.proxy.backends.abilities import Abilities

__all__ = [
    "PLAIN",
    "PROFILES",
    "STREAM_OPTIONS",
    "VLLM",
    "Profile",
    "ProfileName",
    "StreamUsage",
    "TokenField",
]

StreamUsage = Literal["final", "continuous", "none"]
# What is asked for, so that a stream tells its usage.
STREAM_OPTIONS: Final[Mapping[str, dict[str, bool] | None]] = {
    "final": {"include_usage": True},
    "continuous": {"include_usage": True, "continuous_usage_stats": True},
    "none": None,
}
TokenField = Literal["max_tokens", "max_completion_tokens"]
ProfileName = Literal[
    "ollama",
    "llama_cpp",
    "sglang",
    "tgi",
    "lm_studio",
    "transformers",
    "openai",
    "azure",
    "openrouter",
    "deepseek",
    "together",
    "groq",
    "mistral",
]


@dataclass(frozen=True, slots=True)
class Profile:
    """Defaults for one kind of server.

    `max_n` is the largest `n` of one call (None: not known). `developer` says whether the role
    `developer` is understood, else it is sent as `system`. `key_header` carries the key, after
    `Bearer ` if it is Authorization. `sampling` are body fields sent where nobody says otherwise.
    """

    abilities: Abilities = field(default_factory=Abilities)
    token_field: TokenField | None = None
    seed_field: str = "seed"
    max_n: int | None = None
    stream_usage: StreamUsage = "final"
    developer: bool = True
    key_header: str = "Authorization"
    sampling: Mapping[str, Any] = field(default_factory=dict)


PLAIN: Final = Profile()

# Without its own values, vLLM takes those of the model's generation_config.json, and figures of
# coverage would mean something else for every model.
VLLM: Final = Profile(
    stream_usage="continuous",
    sampling={"temperature": 1.0, "top_p": 1.0, "top_k": 0},
)

PROFILES: Final[Mapping[ProfileName, Profile]] = {
    "ollama": Profile(
        Abilities(n=False, seed=True, stop=True, continuation=False, stream_usage=True),
        token_field="max_tokens",
        max_n=1,
        developer=False,
    ),
    "llama_cpp": Profile(
        Abilities(n=False, seed=True, stop=True, stream_usage=True),
        token_field="max_tokens",
        max_n=1,
        developer=False,
    ),
    "sglang": Profile(
        Abilities(n=True, logprobs=True, stop=True, stream_usage=True),
        developer=False,
    ),
    "tgi": Profile(
        Abilities(n=False, logprobs=True, seed=True, stop=True, stream_usage=True),
        token_field="max_tokens",
        max_n=1,
        developer=False,
    ),
    "lm_studio": Profile(
        Abilities(n=False, seed=True, stop=True, continuation=False),
        token_field="max_tokens",
        max_n=1,
        developer=False,
    ),
    "transformers": Profile(
        Abilities(n=False, logprobs=False, continuation=False, structured=False),
        token_field="max_tokens",
        max_n=1,
        developer=False,
    ),
    "openai": Profile(
        Abilities(n=True, continuation=False, stream_usage=True, structured=True),
        token_field="max_completion_tokens",
        max_n=128,
    ),
    "azure": Profile(
        Abilities(n=True, continuation=False, stream_usage=True, structured=True),
        token_field="max_completion_tokens",
        max_n=128,
        key_header="api-key",
    ),
    "openrouter": Profile(
        Abilities(n=False, continuation=False, stream_usage=True),
        token_field="max_tokens",
        max_n=1,
    ),
    "deepseek": Profile(
        Abilities(n=False, stop=True, continuation=False, stream_usage=True),
        token_field="max_tokens",
        max_n=1,
        developer=False,
    ),
    "together": Profile(
        Abilities(n=True, continuation=False),
        token_field="max_tokens",
        max_n=128,
        developer=False,
    ),
    "groq": Profile(
        Abilities(n=False, logprobs=False, continuation=False),
        token_field="max_completion_tokens",
        max_n=1,
        developer=False,
    ),
    "mistral": Profile(
        Abilities(logprobs=False, continuation=False),
        token_field="max_tokens",
        seed_field="random_seed",
        # It refuses fields that it does not know, and sends usage at the end unasked.
        stream_usage="none",
        developer=False,
    ),
}
