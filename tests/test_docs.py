"""What the pages for readers name is there: files, folders, modules, and the places that links lead to."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
ROOMS = ("jetstore", "server", "tests", "jepsen", "docs", ".ci")
_CODE = re.compile(r"`([^`\n]+)`")
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_PATH = re.compile(r"(?:[\w.*{},-]+/)*[\w.*{},-]+/?")
_MODULE = re.compile(r"(?:jetstore|server|jepsen)(?:\.\w+)+")


def ids(page: Path) -> str:
    return str(page.relative_to(ROOT))


def alternatives(path: str) -> list[str]:
    """``a/{b,c}.py`` as two paths."""
    found = re.search(r"\{([^}]*)\}", path)
    if found is None:
        return [path]
    return [each for word in found[1].split(",") for each in alternatives(path.replace(found[0], word, 1))]


def is_there(path: str) -> bool:
    return all(any(ROOT.glob(each.rstrip("/"))) for each in alternatives(path))


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_files_and_modules_that_are_named_exist(page: Path) -> None:
    lost = []
    for code in _CODE.findall(page.read_text()):
        word = code.strip().split(" ")[0].split("::")[0]
        if _PATH.fullmatch(word) and word.split("/")[0] in ROOMS and "/" in word:
            if not is_there(word):
                lost.append(word)
        elif _MODULE.fullmatch(word) and not is_module(word):
            lost.append(word)
    assert lost == []


def is_module(dotted: str) -> bool:
    """Whether a module has this name, or one has something of it in its text."""
    words = dotted.split(".")
    for count in range(len(words), 1, -1):
        path = ROOT.joinpath(*words[:count])
        for file in (path.with_suffix(".py"), path / "__init__.py"):
            if file.is_file():
                text = file.read_text()
                return all(re.search(rf"\b{word}\b", text) for word in words[count:])
    return False


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_links_lead_somewhere(page: Path) -> None:
    lost = []
    for target in _LINK.findall(page.read_text()):
        if "://" in target or target.startswith("mailto:"):
            continue
        name, _, anchor = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        if not path.exists() or (anchor and anchor not in anchors(path)):
            lost.append(target)
    assert lost == []


def anchors(page: Path) -> set[str]:
    """The names by which a page's headings are linked to."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_what_is_not_there_is_found() -> None:
    assert not is_there("jetstore/store/nowhere.py")
    assert is_there("jetstore/store/{keys,footer}.py")
    assert not is_module("jetstore.store.keys.Nothing")
    assert is_module("jetstore.store.keys.Keys")
