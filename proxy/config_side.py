"""`side_requests:` of a route: what chat programs ask beside the conversation."""

from __future__ import annotations

from pydantic import Field

from samplewise.proxy.config_types import Count, Many, Name, Settings, Text

__all__ = ["SideSettings"]

# How programs begin the prompts for titles, tags, follow-up questions and searches by default.
_BEGINS = (
    # Open WebUI
    "### Task:\nGenerate a concise, 3-5 word title",
    "### Task:\nGenerate 1-3 broad tags",
    "### Task:\nSuggest 3-5 relevant follow-up questions",
    "### Task:\nAnalyze the chat history to determine the necessity of generating search queries",
    "### Task:\nYou are an autocompletion system",
    # LibreChat
    "Provide a concise, 5-word-or-less title for the conversation",
    "Please generate a concise, 5-word-or-less title for the conversation",
)


class SideSettings(Settings):
    """How side requests are recognised: the last message of the user begins with one of `begins`.

    They get one sample of `backend` (the route's first), of at most `max_tokens` (the route's).
    """

    begins: Many[Text] = Field(default_factory=lambda: _BEGINS)
    backend: Name | None = None
    max_tokens: Count | None = None
