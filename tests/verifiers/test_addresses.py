"""Where a webhook may go: what its name stands for decides, at the moment of the connection."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from ipaddress import ip_network

import aiohttp
import pytest
from aiohttp.abc import AbstractResolver, ResolveResult

from samplewise.verifiers.addresses import Guarded, NotAllowed, allowed, refused_literal
from samplewise.verifiers.base import VerifierError, VerifierSetupError
from samplewise.verifiers.webhook import Webhook
from tests.verifiers.making import sample, task

# Ways to write an address of this machine that filters of text have fallen for.
LOOPBACK = (
    "127.0.0.1",
    "localhost",
    "127.1",
    "2130706433",
    "0x7f000001",
    "0177.0.0.1",
    "[::1]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "127.0.0.1.",
    "localhost.",
    "0",
    "0.0.0.0",
    "[::]",
)
SECRETS = (
    "169.254.169.254",
    "169.254.170.2",
    "[fe80::1]",
    "[fd00:ec2::254]",
    "[::ffff:169.254.169.254]",
    "[2002:a9fe:a9fe::]",
    "100.100.100.200",
    "168.63.129.16",
    "0.0.0.0",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
)
ELSEWHERE = (ip_network("203.0.113.0/24"),)


@asynccontextmanager
async def canary() -> AsyncIterator[tuple[int, list[object]]]:
    """A server on both loopback addresses that notes who comes."""
    came: list[object] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came.append(writer.get_extra_info("peername"))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port: int = server.sockets[0].getsockname()[1]
    async with server:
        yield port, came


async def refused(url: str, networks: Sequence[object]) -> str:
    """Ask a webhook and return why it could not be asked, at its start or later."""
    hook = Webhook(name="w", url=url, networks=networks, timeout_s=20)  # type: ignore[arg-type]
    try:
        await hook.open()
        await hook.verify(task("r"), sample("x"))
    except (VerifierError, VerifierSetupError) as error:
        return str(error)
    finally:
        await hook.close()
    raise AssertionError(f"{url} was asked")


@pytest.mark.parametrize("host", LOOPBACK)
async def test_no_spelling_of_this_machine_gets_round_the_networks(host: str) -> None:
    async with canary() as (port, came):
        assert await refused(f"http://{host}:{port}/grade", ELSEWHERE)
        assert came == []
        # It would have noticed.
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.close()


@pytest.mark.parametrize("host", SECRETS)
async def test_where_machines_find_their_secrets_is_not_asked_unless_it_is_named(
    host: str,
) -> None:
    assert "no address that a webhook may have" in await refused(f"http://{host}/latest", ())
    bare = host.strip("[]")
    assert refused_literal(bare, ())
    named = "169.254.0.0/16" if "169.254" in bare or bare.startswith("2002") else bare
    assert not refused_literal(bare, (ip_network(named),))


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "10.0.0.7", "fd12::1", "93.184.216.34"])
def test_services_of_this_machine_and_network_are_asked_by_default(address: str) -> None:
    assert allowed(address, ())
    assert not allowed(address, ELSEWHERE)


class Rebinding(AbstractResolver):
    """Names an address that is allowed first, and this machine from then on."""

    def __init__(self) -> None:
        self.asked = 0

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        self.asked += 1
        address = "203.0.113.9" if self.asked == 1 else "127.0.0.1"
        return [one(host, port, address)]

    async def close(self) -> None:
        """Nothing is held."""


def one(host: str, port: int, address: str) -> ResolveResult:
    flags = socket.AI_NUMERICHOST
    family = socket.AF_INET
    return ResolveResult(
        hostname=host, host=address, port=port, family=family, proto=0, flags=flags
    )


async def test_a_name_that_changes_its_address_is_checked_each_time() -> None:
    async with canary() as (port, came):
        inner = Rebinding()
        guarded = Guarded(ELSEWHERE, inner)
        (first,) = await guarded.resolve("hook.example", port)
        # What was checked is what is given to the connection.
        assert first["host"] == "203.0.113.9"
        with pytest.raises(NotAllowed, match=r"hook\.example"):
            await guarded.resolve("hook.example", port)
        connector = aiohttp.TCPConnector(resolver=guarded)
        async with aiohttp.ClientSession(connector=connector) as session:
            with pytest.raises(aiohttp.ClientConnectorError):
                await session.post(f"http://hook.example:{port}/")
        assert (inner.asked, came) == (3, [])


async def test_of_several_addresses_only_those_that_may_be_asked_are_left() -> None:
    class Two(Rebinding):
        async def resolve(
            self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
        ) -> list[ResolveResult]:
            return [one(host, port, "169.254.169.254"), one(host, port, "127.0.0.1")]

    found = await Guarded((), Two()).resolve("two.example", 80)
    assert [entry["host"] for entry in found] == ["127.0.0.1"]
