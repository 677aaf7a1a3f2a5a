"""Answers requests that continue prompts, each prompt by a run of its own; knows no HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from samplewise.proxy.errors import AnswerError, Elsewhere, RequestError
from samplewise.proxy.job import Answer, Job, Retry
from samplewise.proxy.service import Service
from samplewise.proxy.serving import Client, answer_job, open_job
from samplewise.proxy.suffix import without_suffix
from samplewise.proxy.texts import check_route
from samplewise.proxy.wire import ChatRequest

__all__ = ["answer_texts", "open_texts", "serve_texts"]

_AT_ONCE = 16


async def serve_texts(
    service: Service, requests: Sequence[ChatRequest], client: Client
) -> list[Answer]:
    """Answer the prompts of one request, in their order.

    Raises:
        AnswerError: one of them has no answer; it was counted and logged.
    """
    try:
        jobs = open_texts(service, requests, client)
    except AnswerError as error:
        service.refused("other", error, client.request_id, client.key)
        raise
    return await answer_texts(service, jobs)


def open_texts(service: Service, requests: Sequence[ChatRequest], client: Client) -> list[Job]:
    """Put together what each prompt may do; nothing is bought, counted or written yet.

    The ledger knows the prompts behind the first by the request's id with their number, `ID_1`.

    Raises:
        RequestError: the route cannot continue prompts, or more is asked for than is allowed.
    """
    name, _ = without_suffix(requests[0], service.routes)
    jobs = []
    for number, request in enumerate(requests):
        own = replace(
            client,
            request_id=f"{client.request_id}_{number}" if number else client.request_id,
            retry=_numbered(client.retry, number),
        )
        try:
            jobs.append(open_job(service, request, own))
        except RequestError as error:
            raise _of_best_of(error, request) from None
        if not number:
            # Only now: who may not use the route must not learn of its backends.
            check_route(service, request, name)
    return jobs


async def answer_texts(service: Service, jobs: Sequence[Job]) -> list[Answer]:
    """Answer the prompts that were opened, in their order.

    Raises:
        Elsewhere: another process works on them; that was neither counted nor logged.
        AnswerError: one of them has no answer; its headers say what all of them have cost.
    """
    places = asyncio.Semaphore(_AT_ONCE)

    async def one(job: Job) -> Answer | AnswerError:
        async with places:
            try:
                return await answer_job(service, job)
            except AnswerError as error:
                return error

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(job)) for job in jobs]
    found = [task.result() for task in tasks]
    answers = [each for each in found if isinstance(each, Answer)]
    errors = [each for each in found if isinstance(each, AnswerError)]
    for error in errors:
        if isinstance(error, Elsewhere):
            raise error
    if errors:
        raise errors[0].costing(sum(each.cost_nano for each in found))
    return answers


def _numbered(retry: Retry | None, number: int) -> Retry | None:
    """Return what finds the run of one prompt again, and never that of a chat."""
    return None if retry is None else replace(retry, name=b"text-%d-%b" % (number, retry.name))


def _of_best_of(error: RequestError, request: ChatRequest) -> RequestError:
    """Say the field that the client has used."""
    if error.param != "samplewise.samples" or b"samples" in request.fields.get("samplewise", b""):
        return error
    text = error.message.replace("samplewise.samples", "best_of")
    return RequestError(text, status=error.status, code=error.code, param="best_of")
