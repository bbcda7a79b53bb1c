"""What keeps text from being JSONB, found without the server."""

import json
import re
from typing import Any

_SURROGATE = re.compile("[\ud800-\udfff]")
_WITHOUT_ESCAPES = re.compile(r"[^\\\t\n\r\0]*")


def is_plain(text: str) -> bool:
    """Whether the text is JSON without any backslash: most is, and this is the quick way to see.

    False says nothing.
    """
    try:
        return _WITHOUT_ESCAPES.fullmatch(text) is not None and _scan(text, 0)[1] == len(text)
    except (StopIteration, ValueError, RecursionError, _ConstantError):
        return False


def json_fault(text: str) -> tuple[str, str] | None:
    """Return why PostgreSQL's JSONB would refuse this text, and its SQLSTATE, or None.

    Python's parser takes NaN, Infinity, lone surrogates and ``\\u0000``; JSONB takes none of them.
    """
    try:
        parsed = _decoder.decode(text)
    except _ConstantError as error:
        return f"JSON with {error}, which JSONB does not have", "22P02"
    except RecursionError:
        return None  # Deeper than Python reads; the server has its own limit and decides.
    except ValueError as error:
        return f"not valid JSON: {error}", "22P02"
    return _string_fault(parsed) if "\\u" in text else None


def _string_fault(parsed: Any) -> tuple[str, str] | None:
    waiting = [parsed]
    while waiting:
        match waiting.pop():
            case str(text) if "\0" in text:
                return "JSON with \\u0000, which JSONB can't hold", "22P05"
            case str(text) if _SURROGATE.search(text):
                return "JSON with a lone surrogate", "22P02"
            case dict(items):
                waiting += items.keys()
                waiting += items.values()
            case list(items):
                waiting += items
    return None


class _ConstantError(Exception):
    """JSON text holds NaN or an Infinity."""


def _no_constant(name: str) -> None:
    raise _ConstantError(name)


# Numbers stay text: Python would refuse integers of more than 4,300 digits. Made once: to make one
# takes as long as to read a short text with it.
_decoder: Any = json.JSONDecoder(parse_constant=_no_constant, parse_int=str, parse_float=str)
_scan = _decoder.scan_once
