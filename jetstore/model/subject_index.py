"""Which streams' subjects can meet a given subject or pattern, without a look at all of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence


class _Node:
    """What follows one beginning of subjects."""

    __slots__ = ("ends", "follows", "rest")

    def __init__(self) -> None:
        self.follows: dict[str, _Node] = {}
        """By next token, ``*`` being one like any other."""
        self.ends: dict[str, None] = {}
        """Owners of the subject that ends here."""
        self.rest: dict[str, None] = {}
        """Owners of the pattern that goes on with ``>``."""

    @property
    def is_unused(self) -> bool:
        return not (self.follows or self.ends or self.rest)


class SubjectIndex:
    """Subjects and patterns of named owners, as a tree of their tokens. Questions cost what they find."""

    def __init__(self) -> None:
        self._root = _Node()

    def add(self, subject: str, owner: str) -> None:
        """A valid subject or pattern that the owner has from now on."""
        node, tokens, is_open = self._root, *_split(subject)
        for token in tokens:
            following = node.follows.get(token)
            if following is None:
                following = node.follows[token] = _Node()
            node = following
        (node.rest if is_open else node.ends)[owner] = None

    def remove(self, subject: str, owner: str) -> None:
        """One that the owner has no longer; nothing happens if it had it not."""
        node, tokens, is_open = self._root, *_split(subject)
        path = []
        for token in tokens:
            if token not in node.follows:
                return
            path.append((node, token))
            node = node.follows[token]
        (node.rest if is_open else node.ends).pop(owner, None)
        for parent, token in reversed(path):
            if not parent.follows[token].is_unused:
                break
            del parent.follows[token]

    def colliding(self, subject: str) -> Iterator[str]:
        """Owners of what some literal subject matches together with this one; an owner may come more than once."""
        tokens, is_open = _split(subject)
        nodes = [self._root]
        for token in tokens:
            following: list[_Node] = []
            for node in nodes:
                yield from node.rest
                if token == "*":
                    following += node.follows.values()
                else:
                    following += [found for each in (token, "*") if (found := node.follows.get(each)) is not None]
            nodes = following
            if not nodes:
                return
        if is_open:
            yield from _below(nodes)
        else:
            for node in nodes:
                yield from node.ends


def _split(subject: str) -> tuple[Sequence[str], bool]:
    """Its tokens, without a last ``>``, and whether it has that."""
    tokens = subject.split(".")
    return (tokens[:-1], True) if tokens[-1] == ">" else (tokens, False)


def _below(nodes: Sequence[_Node]) -> Iterator[str]:
    """Owners of what goes on behind these beginnings by one token at least."""
    waiting = list(nodes)
    for node in nodes:
        yield from node.rest
    while waiting:
        for node in waiting.pop().follows.values():
            yield from node.ends
            yield from node.rest
            waiting.append(node)
