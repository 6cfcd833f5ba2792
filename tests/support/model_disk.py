"""A disk that forgets at a power failure what was not synced.

``Disk`` takes the steps of a ``Tape`` one by one and knows what of them a power failure
may undo.

    written bytes           lost, kept up to any byte, or zeros, until the file is synced
    names in a directory    made, moved and removed or not, each for itself, until that
                            directory is synced; a rename happens whole or not at all
    a failed sync           proves nothing, nor does a later one of the same file

So a directory's own name is safe only once its parent is synced, and syncing a
file says nothing about its name. A disk may do better; none does worse.
"""

import os
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from tests.support.tape import Step

_SECTOR_BYTES = 512


@dataclass(eq=False)
class File:
    """A file: what is safe of it, and what was done since."""

    safe: bytes = b""
    since: list[tuple[int, bytes | None]] = field(default_factory=list)  # None: cut off there
    doubtful: bool = False  # a sync has failed

    def sync(self) -> None:
        if not self.doubtful:
            self.safe, self.since = self.content(), []

    def content(self, steps: int | None = None) -> bytes:
        """Return the bytes after so many of the steps since; all of them by default."""
        data = self.safe
        for at, written in self.since[:steps]:
            data = data[:at].ljust(at, b"\0") + (written or b"")
        return data


@dataclass(eq=False)
class Directory:
    """A directory: the names in it that are safe, and those that are there now."""

    safe: "dict[str, Node]" = field(default_factory=dict)
    names: "dict[str, Node]" = field(default_factory=dict)


Node = File | Directory


@dataclass(eq=False)
class Change:
    """One change of names, which happens whole or not at all."""

    effects: list[tuple[Directory, str, Node | None]]

    @property
    def cells(self) -> set[tuple[int, str]]:
        return {(id(directory), name) for directory, name, _ in self.effects}

    @property
    def removes(self) -> bool:
        return all(node is None for _, _, node in self.effects)

    def happen(self) -> None:
        for directory, name, node in self.effects:
            if node is None:
                directory.safe.pop(name, None)
            else:
                directory.safe[name] = node


Tree = dict[str, bytes | None]  # by path; None is a directory


class Fate(NamedTuple):
    """What becomes of everything that was not synced."""

    name: str
    change: Callable[[Change], bool]
    data: Callable[[File], bytes]


def _zeros(file: File) -> bytes:
    return file.safe.ljust(len(file.content()), b"\0")


def _uncut(file: File) -> bytes:
    return File(file.safe, [step for step in file.since if step[1] is not None]).content()


#: As if only the process had died.
KEPT = Fate("everything is kept", lambda _: True, File.content)

EXTREMES = (
    Fate("nothing is kept", lambda _: False, lambda file: file.safe),
    Fate("names without data", lambda _: True, lambda file: file.safe),
    Fate("names and zeros", lambda _: True, _zeros),
    Fate("all but cuts", lambda _: True, _uncut),
    Fate("data without names", lambda _: False, File.content),
    Fate("removals alone", lambda change: change.removes, File.content),
    Fate("all but removals", lambda change: not change.removes, File.content),
)


def chance(seed: int) -> Fate:
    """Return a fate in which chance decides about every change and every byte."""
    dice = random.Random(seed)
    share = dice.choice((0.1, 0.5, 0.9))

    def data(file: File) -> bytes:
        steps = dice.randint(0, len(file.since))
        content = file.content(steps)
        if steps < len(file.since) and file.since[steps][1]:
            at, written = file.since[steps]
            content = content[:at] + (written or b"")[: dice.randint(0, len(written or b""))]
        if dice.random() < 0.5:
            return content
        pairs = enumerate(zip(file.safe, content, strict=False))
        first = next((i for i, (a, b) in pairs if a != b), min(len(file.safe), len(content)))
        for at in range(first - first % _SECTOR_BYTES, len(content), _SECTOR_BYTES):
            if dice.random() < 0.5:
                begin, end = max(first, at), min(len(content), at + _SECTOR_BYTES)
                content = content[:begin] + bytes(end - begin) + content[end:]
        return content

    return Fate(f"chance {seed}", lambda _: dice.random() < share, data)


class Disk:
    """The model, which begins with a tree that is safe as it is."""

    def __init__(self, tree: Tree) -> None:
        self._root = Directory()
        self._files: dict[int, Node] = {}
        self._pending: list[Change] = []
        for path, data in sorted(tree.items()):
            parent, name = self._place(path)
            node: Node = Directory() if data is None else File(data)
            parent.safe[name] = parent.names[name] = node

    def take(self, step: Step) -> None:
        """Let one step happen."""
        match step.call:
            case "create":
                self._files[step.file] = file = File()
                self._change((step.path, file))
            case "known":
                self._files[step.file] = self._node(step.path)
            case "write" | "truncate":
                found = self._files[step.file]
                assert isinstance(found, File)
                found.since.append((step.at, step.data if step.call == "write" else None))
            case "fsync" | "fdatasync":
                self._sync(self._files[step.file], step.worked)
            case "mkdir":
                self._change((step.path, Directory()))
            case "rmdir" | "unlink":
                self._change((step.path, None))
            case "rename":
                self._change((step.path, None), (step.other, self._node(step.path)))
            case "link":
                self._change((step.other, self._node(step.path)))

    def after(self, fate: Fate) -> Tree:
        """Return what a power failure at this moment leaves, if this is the fate of the rest."""
        kept: list[Change] = []
        gone: set[tuple[int, str]] = set()
        for change in self._pending:
            # of one name's changes the earlier ones come first
            if gone & change.cells or not fate.change(change):
                gone |= change.cells
            else:
                kept.append(change)
        saved = [(d, dict(d.safe)) for change in kept for d, _, _ in change.effects]
        for change in kept:
            change.happen()
        contents: dict[int, bytes] = {}
        tree = dict(self._walk(self._root, "", fate, contents))
        for directory, safe in reversed(saved):
            directory.safe = safe
        return tree

    def _walk(
        self, directory: Directory, prefix: str, fate: Fate, contents: dict[int, bytes]
    ) -> Iterator[tuple[str, bytes | None]]:
        for name, node in sorted(directory.safe.items()):
            path = os.path.join(prefix, name)
            if isinstance(node, Directory):
                yield path, None
                yield from self._walk(node, path, fate, contents)
            else:
                if id(node) not in contents:
                    contents[id(node)] = fate.data(node)
                yield path, contents[id(node)]

    def _place(self, path: str) -> tuple[Directory, str]:
        parent, name = os.path.split(path)
        directory = self._node(parent)
        assert isinstance(directory, Directory)
        return directory, name

    def _node(self, path: str) -> Node:
        node: Node = self._root
        for name in [n for n in path.split(os.sep) if n not in ("", ".")]:
            assert isinstance(node, Directory)
            node = node.names[name]
        return node

    def _change(self, *effects: tuple[str, Node | None]) -> None:
        placed = [(*self._place(path), node) for path, node in effects]
        for directory, name, node in placed:
            if node is None:
                del directory.names[name]
            else:
                directory.names[name] = node
        self._pending.append(Change(placed))

    def _sync(self, node: Node, worked: bool) -> None:
        if isinstance(node, Directory):
            if worked:
                self._settle({(id(node), name) for name in self._touched(node)})
        elif worked:
            node.sync()
        else:
            node.doubtful = True

    def _touched(self, directory: Directory) -> set[str]:
        effects = [effect for change in self._pending for effect in change.effects]
        return {name for where, name, _ in effects if where is directory}

    def _settle(self, cells: set[tuple[int, str]]) -> None:
        """Make all changes of these names safe, and what must have come before them."""
        settled: list[Change] = []
        for change in reversed(self._pending):
            if change.cells & cells:
                cells |= change.cells
                settled.append(change)
        for change in reversed(settled):
            change.happen()
        self._pending = [change for change in self._pending if change not in settled]


def plant(tree: Tree, root: Path) -> None:
    """Make a directory that holds just this."""
    root.mkdir(parents=True)
    for path, data in sorted(tree.items()):
        if data is None:
            (root / path).mkdir()
        else:
            (root / path).write_bytes(data)
