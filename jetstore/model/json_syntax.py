"""Go's wording of what is wrong with a text that is not JSON. Only consulted after a parse has failed."""

from __future__ import annotations

_BLANK = b" \t\r\n"
_HEX = b"0123456789abcdefABCDEF"
_DIGITS = b"0123456789"


class _Found(Exception):
    """The first fault."""


def syntax_error(body: bytes, *, is_stream: bool = True) -> str:
    """The message for the first fault in ``body``.

    ``is_stream``: in the words of Go's decoder of streams, with the 1-based byte offset where it gives one; else of
    ``json.Unmarshal``.
    """
    scanner = _Scanner(body, is_stream)
    try:
        scanner.blanks()
        scanner.value()
        scanner.blanks()
        if scanner.at < len(body):
            if not is_stream:
                raise scanner.fail("after top-level value")
            scanner.value()
            return "unexpected data after top-level value"
    except _Found as found:
        return str(found)
    except RecursionError:
        return "exceeded max depth"
    return "invalid value"


class _Scanner:
    """A recursive-descent walk that raises ``_Found`` at the first fault."""

    def __init__(self, body: bytes, is_stream: bool) -> None:
        self.body = body
        self.is_stream = is_stream
        self.at = 0

    def peek(self) -> int:
        if self.at >= len(self.body):
            raise _Found("unexpected EOF" if self.is_stream else "unexpected end of JSON input")
        return self.body[self.at]

    def fail(self, context: str) -> _Found:
        byte = self.peek()
        if byte == 0x27:
            shown = "'\\''"
        elif byte == 0x22:
            shown = "'\"'"
        elif byte < 0x20 or byte >= 0x7F:
            shown = {0x0A: "'\\n'", 0x0D: "'\\r'", 0x09: "'\\t'"}.get(byte, f"'\\x{byte:02x}'")
        elif byte == 0x5C:
            shown = "'\\\\'"
        else:
            shown = f"'{chr(byte)}'"
        return self.found(f"invalid character {shown} {context}")

    def found(self, message: str) -> _Found:
        return _Found(f"{message} at offset {self.at + 1}" if self.is_stream else message)

    def blanks(self) -> None:
        while self.at < len(self.body) and self.body[self.at] in _BLANK:
            self.at += 1

    def value(self) -> None:
        byte = self.peek()
        if byte == 0x7B:
            self.object()
        elif byte == 0x5B:
            self.array()
        elif byte == 0x22:
            self.string()
        elif byte in b"-0123456789":
            self.number()
        elif byte in b"tfn":
            self.literal({0x74: b"true", 0x66: b"false", 0x6E: b"null"}[byte])
        else:
            raise self.fail("looking for beginning of value")

    def literal(self, word: bytes) -> None:
        for i in range(1, len(word)):
            self.at += 1
            if self.peek() != word[i]:
                raise self.fail(f"in literal {word.decode()} (expecting '{chr(word[i])}')")
        self.at += 1

    def number(self) -> None:
        if self.peek() == 0x2D:
            self.at += 1
            if self.peek() not in _DIGITS:
                raise self.fail("in numeric literal")
        if self.peek() == 0x30:
            self.at += 1
        else:
            self._digits()
        if self.at < len(self.body) and self.body[self.at] == 0x2E:
            self.at += 1
            if self.peek() not in _DIGITS:
                raise self.fail("in numeric literal")
            self._digits()
        if self.at < len(self.body) and self.body[self.at] in b"eE":
            self.at += 1
            if self.peek() in b"+-":
                self.at += 1
            if self.peek() not in _DIGITS:
                raise self.fail("in numeric literal")
            self._digits()

    def _digits(self) -> None:
        while self.at < len(self.body) and self.body[self.at] in _DIGITS:
            self.at += 1

    def string(self) -> None:
        self.at += 1
        while (byte := self.peek()) != 0x22:
            if byte == 0x5C:
                self.at += 1
                escape = self.peek()
                if escape == 0x75:
                    begin = self.at - 1
                    for _ in range(4):
                        self.at += 1
                        if self.peek() not in _HEX:
                            if not self.is_stream:
                                escape_text = self.body[begin : begin + 6].decode("latin-1")
                                raise self.found(f"invalid escape sequence `{escape_text}` in string")
                            raise self.fail("in \\u hexadecimal character escape")
                elif escape not in b'bfnrt\\/"':
                    raise self.found(f"invalid escape sequence `\\{chr(escape)}` in string")
            elif byte < 0x20:
                raise self.fail("in string literal" if self.is_stream else "in string")
            self.at += 1
        self.at += 1

    def array(self) -> None:
        self.at += 1
        self.blanks()
        if self.peek() == 0x5D:
            self.at += 1
            return
        while True:
            self.blanks()
            self.value()
            self.blanks()
            byte = self.peek()
            if byte not in b",]":
                raise self.fail("after array element")
            self.at += 1
            if byte == 0x5D:
                return

    def object(self) -> None:
        self.at += 1
        self.blanks()
        if self.peek() == 0x7D:
            self.at += 1
            return
        while True:
            self.blanks()
            if self.peek() != 0x22:
                raise self.fail("looking for beginning of object key string")
            self.string()
            self.blanks()
            if self.peek() != 0x3A:
                raise self.fail("after object key")
            self.at += 1
            self.blanks()
            self.value()
            self.blanks()
            byte = self.peek()
            if byte not in b",}":
                raise self.fail("after object key:value pair")
            self.at += 1
            if byte == 0x7D:
                return
