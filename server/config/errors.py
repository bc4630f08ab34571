"""What is wrong with a configuration, with its place."""

from __future__ import annotations

from dataclasses import dataclass


class ConfigError(Exception):
    """A configuration that cannot be used. The text is complete, for standard error."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake and where its key stands."""

    file: str
    line: int
    column: int
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}: {self.text}"


class ConfigProblems(ConfigError):
    """All mistakes of a file, one a line."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems) + "\n")
        self.problems = problems
