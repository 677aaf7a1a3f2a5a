"""A real nginx with the settings that it has where nobody says otherwise, before one server."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest

from tests.wire.books import soon
from tests.wire.proxy import Proxy

__all__ = ["behind_nginx"]

_UNPACKED = Path(__file__).parent / ".nginx" / "usr" / "sbin"  # by make test-clients
_NGINX = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin:{_UNPACKED}")
_CONFIG = """
daemon off; master_process off; pid {folder}/pid; error_log stderr;
events {{}}
http {{
  access_log off;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  {more}
  server {{
    listen unix:{folder}/socket;
    location / {{ proxy_pass {url}; }}
  }}
}}
"""


@asynccontextmanager
async def behind_nginx(proxy: Proxy, folder: Path, more: str = "") -> AsyncIterator[Proxy]:
    """Run nginx before a server, with `more` in its settings; skip the test where there is none.

    What it gives asks nginx over a socket in `folder`, so that no port can be somebody else's.
    """
    if _NGINX is None:
        pytest.skip("nginx is not installed: make test-clients")
    file = _write(folder, _CONFIG.format(folder=folder, url=proxy.url, more=more))
    process = await asyncio.create_subprocess_exec(_NGINX, "-c", str(file), "-p", str(folder))
    try:

        async def listens() -> bool:
            assert process.returncode is None, "nginx has ended"
            try:
                _, writer = await asyncio.open_unix_connection(folder / "socket")
            except OSError:
                return False
            writer.close()
            return True

        await soon(listens, "nginx listens", 60)
        async with aiohttp.ClientSession(
            connector=aiohttp.UnixConnector(str(folder / "socket"), limit=0)
        ) as http:
            yield replace(proxy, url="http://nginx", http=http)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def _write(folder: Path, text: str) -> Path:
    folder.mkdir()
    file = folder / "nginx.conf"
    file.write_text(text)
    return file
