"""Runs inside the sandbox: applies a patch to a tree, and runs nothing of it.

Reads two parts from standard input, each 8 hexadecimal digits and so many bytes: the patch, and a
tar archive of the tree. Prints one JSON line {"refused": TEXT or null, "gone": [PATH]}, and where
it applies a tar archive of the files that are not as they were.
"""

import io
import json
import os
import subprocess
import sys
import tarfile


def _part() -> bytes:
    return sys.stdin.buffer.read(int(sys.stdin.buffer.read(8), 16))


def _state(path: str) -> tuple[bool, bool, bytes]:
    """Return whether it is a link, whether it can be executed, and what is in it."""
    if os.path.islink(path):
        return True, False, os.readlink(path).encode()
    with open(path, "rb") as file:
        return False, bool(os.stat(path).st_mode & 0o100), file.read()


def _states() -> dict[str, tuple[bool, bool, bytes]]:
    found = {}
    for folder, folders, files in os.walk("tree"):
        links = [name for name in folders if os.path.islink(f"{folder}/{name}")]
        for name in (*files, *links):
            path = f"{folder}/{name}"
            found[path.removeprefix("tree/")] = _state(path)
    return found


def _main() -> None:
    patch, archive = _part(), _part()
    os.mkdir("tree")
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall("tree")
    before = _states()
    for check in (["--check"], []):
        said = _git_apply(check, patch)
        if said is not None:
            print(json.dumps({"refused": said[:2000] or "git does not say why"}))
            return
    after = _states()
    gone = sorted(before.keys() - after.keys())
    print(json.dumps({"refused": None, "gone": gone}), flush=True)
    with tarfile.open(fileobj=sys.stdout.buffer, mode="w|") as tar:
        for path in sorted(path for path in after if after[path] != before.get(path)):
            tar.add(f"tree/{path}", arcname=path)


def _git_apply(options: list[str], patch: bytes) -> str | None:
    """Return what git complains of, if it does."""
    done = subprocess.run(
        ["/usr/bin/git", "apply", *options, "--whitespace=nowarn", "-"],
        cwd="tree",
        input=patch,
        env={"PATH": "/usr/bin", "HOME": "/nonexistent", "GIT_CEILING_DIRECTORIES": "/box"},
        capture_output=True,
        check=False,
    )
    return done.stderr.decode(errors="replace").strip() if done.returncode else None


if __name__ == "__main__":
    _main()
