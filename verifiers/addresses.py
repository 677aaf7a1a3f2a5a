"""Which addresses the name of a service may stand for: looked up, checked, and asked as looked up.

A name that is checked and then looked up again could be another address the second time.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver

__all__ = ["Guarded", "Network", "NotAllowed", "allowed", "refused_literal"]

Network = IPv4Network | IPv6Network

# Where clouds tell machines their secrets, beyond link-local addresses.
_METADATA = frozenset({"fd00:ec2::254", "fd20:ce::254", "100.100.100.200", "168.63.129.16"})


class NotAllowed(OSError):
    """A name stands for an address that may not be asked, or for none."""


def allowed(address: str, networks: Sequence[Network]) -> bool:
    """Say whether an address lies in one of the networks.

    Without networks, whether it is one that a service can have: not link-local, where machines
    find their own secrets, nor multicast, unspecified or reserved.
    """
    found = _unmapped(ip_address(address.partition("%")[0]))
    if networks:
        return any(found in network for network in networks)
    never = found.is_link_local or found.is_multicast or found.is_unspecified
    return not (never or _reserved(found) or str(found) in _METADATA)


def refused_literal(host: str, networks: Sequence[Network]) -> bool:
    """Say whether the host of a URL is written as an address, and as one that is not `allowed`."""
    try:
        return not allowed(host, networks)
    except ValueError:
        return False  # a name, which is looked up with every connection


@dataclass(slots=True)
class Guarded(AbstractResolver):
    """Looks names up and drops what is not `allowed`; connections go to what is left."""

    networks: Sequence[Network] = ()
    inner: AbstractResolver = field(default_factory=ThreadedResolver)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return the addresses of a name that may be asked.

        Raises:
            NotAllowed: there is none.
        """
        found = await self.inner.resolve(host, port, family)
        kept = [one for one in found if allowed(one["host"], self.networks)]
        if not kept:
            raise NotAllowed(f"{host} has no address that this verifier may ask")
        return kept

    async def close(self) -> None:
        """Close the resolver below."""
        await self.inner.close()


def _unmapped(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """Return the IPv4 address that an IPv6 address carries, if it does."""
    if isinstance(address, IPv4Address):
        return address
    return address.ipv4_mapped or address.sixtofour or address


def _reserved(address: IPv4Address | IPv6Address) -> bool:
    # ::1 lies in a block that is reserved as a whole.
    return address.is_reserved and not address.is_loopback
