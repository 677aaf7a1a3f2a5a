"""Trees of files as values: what a commit holds, what a patch makes of it, and tar archives."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["File", "Tree", "added", "changed", "packed", "unpacked"]


@dataclass(frozen=True, slots=True)
class File:
    """One file: its bytes, or where a link points to; and whether it can be executed."""

    data: bytes
    executable: bool = False
    link: bool = False


Tree = Mapping[str, File]


def packed(tree: Tree) -> bytes:
    """Return a tar archive."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path, file in sorted(tree.items()):
            member = tarfile.TarInfo(path)
            member.mode = 0o755 if file.executable else 0o644
            if file.link:
                member.type, member.linkname = tarfile.SYMTYPE, file.data.decode()
                tar.addfile(member)
            else:
                member.size = len(file.data)
                tar.addfile(member, io.BytesIO(file.data))
    return archive.getvalue()


def unpacked(archive: bytes) -> Tree:
    """Return the files and links of a tar archive; folders are what paths say."""
    tree = {}
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        for member in tar:
            path, executable = member.name.removeprefix("./"), bool(member.mode & 0o100)
            if member.issym():
                tree[path] = File(member.linkname.encode(), link=True)
            elif member.isfile():
                content = tar.extractfile(member)
                assert content is not None
                tree[path] = File(content.read(), executable)
    return tree


def changed(before: Tree, after: Tree) -> frozenset[str]:
    """Return the paths that are not the same in both."""
    paths = before.keys() | after.keys()
    return frozenset(path for path in paths if before.get(path) != after.get(path))


def added(tree: Tree, over: Mapping[str, File | None]) -> Tree:
    """Return a tree with files put over it; None takes one away."""
    files = {**tree, **over}
    return {path: file for path, file in files.items() if file is not None}
