"""Runs inside the sandbox: asks databases one query each, which may read and nothing else.

Reads from standard input parts of 8 hexadecimal digits and so many bytes: first JSON {"queries":
[{"query", "setup", "database": NUMBER or null}], "databases": COUNT, "most_rows"}, then these.
Prints {"compile": null}, then one JSON line per query, {"case": N, "rows": [[VALUE]]} or {"case":
N, "error": NAME, "said": TEXT}. Bytes are {"hex": TEXT}. Expected rows are not here.
"""

import json
import sqlite3
import sys
from typing import Any

_READING = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_RECURSIVE}
_NO_FUNCTIONS = {"load_extension", "fts3_tokenizer", "writefile", "readfile", "edit"}
_MOST_LENGTH = 4_000_000


def _part() -> bytes:
    return sys.stdin.buffer.read(int(sys.stdin.buffer.read(8), 16))


class _Reader:
    """Lets a query read; remembers when it wanted more."""

    def __init__(self) -> None:
        self.refused = False

    def __call__(self, action: int, first: Any, second: Any, *_: Any) -> int:
        reads = action in _READING
        if action == sqlite3.SQLITE_FUNCTION:
            reads = str(second).lower() not in _NO_FUNCTIONS
        self.refused |= not reads
        return sqlite3.SQLITE_OK if reads else sqlite3.SQLITE_DENY


def _value(value: Any) -> Any:
    return {"hex": value.hex()} if isinstance(value, bytes) else value


def _opened(number: int | None, setup: str, case: int) -> sqlite3.Connection:
    name = f"/box/db{number}" if number is not None else f"/box/own{case}"
    if number is None:
        with sqlite3.connect(name) as made:
            made.executescript(setup)
        made.close()
    return sqlite3.connect(f"file:{name}?mode=ro&immutable=1", uri=True)


def _answer(case: int, job: dict[str, Any], most_rows: int) -> dict[str, Any]:
    reader = _Reader()
    try:
        database = _opened(job["database"], job["setup"], case)
    except (sqlite3.Error, sqlite3.Warning) as error:
        return {"case": case, "error": "setup", "said": str(error)}
    try:
        if hasattr(database, "setlimit"):
            database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MOST_LENGTH)
        database.set_authorizer(reader)
        # One statement alone is taken.
        cursor = database.execute(job["query"])
        rows = cursor.fetchmany(most_rows + 1)
    except (sqlite3.Error, sqlite3.Warning, ValueError, OverflowError) as error:
        name = "forbidden" if reader.refused else type(error).__name__
        return {"case": case, "error": name, "said": str(error)}
    finally:
        database.close()
    if cursor.description is None:
        return {"case": case, "error": "forbidden", "said": "no query"}
    if len(rows) > most_rows:
        return {"case": case, "error": "OutputLimit"}
    return {"case": case, "rows": [[_value(value) for value in row] for row in rows]}


def _main() -> None:
    job = json.loads(_part())
    for number in range(job["databases"]):
        with open(f"/box/db{number}", "wb") as file:
            file.write(_part())
    print(json.dumps({"compile": None}), flush=True)
    for case, each in enumerate(job["queries"]):
        print(json.dumps(_answer(case, each, job["most_rows"])), flush=True)


if __name__ == "__main__":
    _main()
