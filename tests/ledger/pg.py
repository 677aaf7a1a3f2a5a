"""A PostgreSQL server of the tests' own, in a folder that goes with them."""

from __future__ import annotations

import asyncio
import getpass
import itertools
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

import asyncpg

_databases = itertools.count()


def programs() -> Path | None:
    """Return the newest folder with the server's programs, None if it is not installed."""
    found = shutil.which("initdb")
    folders = [
        *sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda p: -int(p.parts[-2])),
        *([Path(found).parent] if found else []),
    ]
    return next((folder for folder in folders if (folder / "initdb").exists()), None)


def account_of_server() -> str | None:
    """Return who can run a server: it refuses root."""
    if os.geteuid() != 0:
        return getpass.getuser()
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name).pw_name
        except KeyError:
            continue
    return None


class Server:
    """One cluster on a loopback port. `stop` is like a crash.

    Only a `durable` one survives that of the machine, which no test causes.
    """

    def __init__(self, bin_: Path, user: str, *, durable: bool = False) -> None:
        self._durable = durable
        self._bin = bin_
        self._user = user
        self._folder = Path(tempfile.mkdtemp(prefix="samplewise-pg-"))
        if os.geteuid() == 0:
            entry = pwd.getpwnam(user)
            os.chown(self._folder, entry.pw_uid, entry.pw_gid)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self._call("initdb", "-D", self._data, "-U", "test", "-A", "trust", "-E", "UTF8", "-N")
        self.start()

    @property
    def _data(self) -> str:
        return str(self._folder / "data")

    @property
    def pid(self) -> int:
        """The first process of the server; all others are its children."""
        return int((self._folder / "data" / "postmaster.pid").read_text().split()[0])

    def url(self, database: str) -> str:
        return f"postgresql://test@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        options = (
            f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories=''"
            f" -c fsync={'on' if self._durable else 'off'} -c shared_buffers=16MB"
        )
        log = str(self._folder / "log")
        self._call("pg_ctl", "-D", self._data, "-l", log, "-o", options, "-w", "start")

    def stop(self) -> None:
        self._call("pg_ctl", "-D", self._data, "-m", "immediate", "-w", "stop")

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self._folder)

    def new_database(self) -> str:
        """Make an empty database and return its URL."""
        name = f"ledger_{next(_databases)}"
        self.run(f"CREATE DATABASE {name}")
        return self.url(name)

    def run(self, statement: str) -> None:
        asyncio.run(execute(self.url("postgres"), statement))

    def _call(self, program: str, *args: str) -> None:
        command = [str(self._bin / program), *args]
        if os.geteuid() == 0:
            command = ["setpriv", f"--reuid={self._user}", "--clear-groups", *command]
        # Output to a file: a server that inherits a pipe would keep it open.
        with open(self._folder / "calls", "ab") as out:
            subprocess.run(
                command, check=True, stdout=out, stderr=out, cwd=self._folder, timeout=120
            )


async def execute(url: str, *statements: str) -> list[tuple[object, ...]]:
    """Run statements on a connection of their own; return the rows of the last."""
    db = await asyncpg.connect(url)
    try:
        found: list[tuple[object, ...]] = []
        for statement in statements:
            found = [tuple(row) for row in await db.fetch(statement)]
        return found
    finally:
        await db.close()


async def let_run_out(url: str, *epochs: int) -> None:
    """End the leases of openings, as if they were silent; all others were there all the time."""
    dead = ", ".join(map(str, epochs))
    await execute(
        url,
        "UPDATE samplewise.writers SET since = 0",
        f"UPDATE samplewise.writers SET lease_until = 0 WHERE epoch IN ({dead})",
    )
