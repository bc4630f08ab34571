"""Any text is a configuration or an error with a place; both come soon."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server.config.errors import ConfigError
from server.config.parser import parse_text
from server.config.reader import TOP_LEVEL, load_options
from server.config.tree import digest

PLACE = re.compile(
    r"\S+:\d+:\d+: .+|Parse error on line \d+: .+|config is invalid \(\S+:\d+:\d+\)|.* on line \d+ can not be found"
    r"|integer '.*' is out of the range \(\S+:\d+\)|variable reference cycle for .*|(error parsing include file .*, )?"
    r"(open|read) .*|x\.conf: config has no values or is empty|.*:\d+: this is not UTF-8 text",
    re.DOTALL,
)
SCALARS = st.one_of(
    st.sampled_from(
        [
            *("1", "-1", "1K", "10GB", "true", "off", "1.5", '"2s"', "'x y'", "a.b.>", "$X", "$NOPE", "$2a$11$abc"),
            *('"\\x41\\t"', '"\\q"', "(\n text\n)", "0", "99999999999999999999", "[]", "{}", '""', "2m", "h:1", "a:-1"),
        ]
    ),
    st.text(alphabet="ab:$\"'\\ \t{}[](),;#/=-1.Ké\0", max_size=6),
)
KEYS = st.one_of(
    st.sampled_from(
        [*sorted(TOP_LEVEL), "X", "include", "users", "user", "password", "permissions", "name", "subject"]
    ),
    st.text(alphabet="abX_\"'.", min_size=1, max_size=5),
)


def _pairs(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    pair = st.builds(
        lambda key, separator, value: f"{key}{separator}{value}", KEYS, st.sampled_from([": ", " ", "=", ""]), values
    )
    return st.builds(str.join, st.sampled_from(["\n", ", ", ";", " "]), st.lists(pair, max_size=4))


VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        _pairs(inner).map(lambda text: "{ " + text + " }"),
        st.lists(inner, max_size=3).map(lambda items: "[" + ", ".join(items) + "]"),
    ),
    max_leaves=12,
)
CONFIGS = st.one_of(_pairs(VALUES), st.text(max_size=60))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(CONFIGS)
def test_a_file_is_read_or_has_mistakes_with_places(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.conf"
    path.write_bytes(text.encode("utf-8", "replace"))
    try:
        load_options(path, {"X": "5"}, is_test=True)
    except ConfigError as error:
        lines = str(error).replace(f"{tmp_path}/", "").rstrip("\n")
        assert PLACE.match(lines), lines


@given(st.binary(max_size=80))
def test_any_bytes(data: bytes) -> None:
    try:
        digest(parse_text(data.decode("utf-8", "replace"), {}))
    except ConfigError:
        pass


@pytest.mark.parametrize(
    "text",
    [
        "a: " + "[" * 100_000,
        "a {" * 50_000,
        "a: " + '"' + "\\" * 100_001,
        "#" * 200_000,
        "a: 1\n" * 50_000,
        "a: [" + "1, " * 30_000 + "]",
        "a: (\n" + "x\n" * 100_000,
        "a: " + "1" * 200_000,
        "x0: 1\n" + "\n".join(f"x{i + 1}: {{a: $x{i}, b: $x{i}}}" for i in range(200)),
        "a " * 50_000,
        "a: $X\n" * 20_000,
    ],
    ids=lambda text: text[:12],
)
def test_large_files_end_soon(text: str) -> None:
    """Quadratic work on these would take minutes."""
    try:
        digest(parse_text(text, {"X": "[" * 1000}))
    except ConfigError:
        pass


def test_includes_cannot_multiply(tmp_path: Path) -> None:
    (tmp_path / "x.conf").write_text("include x.conf\ninclude x.conf\n")
    with pytest.raises(ConfigError, match=r"nested too deeply|too many includes"):
        load_options(tmp_path / "x.conf", {})
    for number in range(12):
        (tmp_path / f"{number}.conf").write_text(f"include {number + 1}.conf\ninclude {number + 1}.conf\n")
    (tmp_path / "12.conf").write_text("debug: true\n")
    with pytest.raises(ConfigError, match="too many includes"):
        load_options(tmp_path / "0.conf", {})
