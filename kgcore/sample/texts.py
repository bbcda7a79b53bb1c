"""Text and JSON of every kind that a graph may hold and PostgreSQL can store.

Everything here is valid for the target: no NUL, no lone surrogate, no NaN, and nothing that is
indexed is longer than a B-tree entry may be.
"""

import json
import random

_ALPHABETS = (
    "the quick brown fox jumps over the lazy dog ",
    "быстрая бурая лиса прыгает ",
    "敏捷的棕色狐狸跳过了懒狗",
)


def _long(characters: int, alphabet: str) -> str:
    return (alphabet * (characters // len(alphabet) + 1))[:characters]


def _noise(characters: int) -> str:
    """Return text that does not compress."""
    letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ+/"
    source = random.Random(characters)  # noqa: S311 - sample data, the same every time
    return "".join(source.choices(letters, k=characters))


# What stands before and after a number. No text before it has a digit and none after it begins with
# one, so different pairs or numbers never give the same text. The longest are below 2,704 bytes,
# PostgreSQL's bound for a B-tree entry, type and header included.
STRANGE_NAMES: tuple[tuple[str, str], ...] = (
    ('say "hello" ', ' and "good bye"'),
    ("it's O'Brien's ", "'"),
    ("C:\\temp\\new\\", "\\"),
    ("tab\tseparated\t", "\tname"),
    ("two\nlines ", "\n"),
    ("carriage\r\nreturn ", "\r"),
    ("\\.", "\\."),
    ("\\.\n", "\n\\.\n"),
    ("\\N", "\\N"),
    ("%s %(name)s {} {name} $", "%"),
    ("launch 🚀 ", " 👩‍👩‍👧‍👦🏳️‍🌈"),
    ("שלום עולם ", " مرحبا\u202e"),
    ("e\u0301a\u0308n\u0303 ", " Z\u0351\u036b\u0343\u036a\u0302"),
    ("   leading ", "   trailing   "),
    (" \u00a0\u2003\ufeff", "\u200b\u2028"),
    ("\x01\x02\x1b[31m", "\x7f\x80\x9f"),
    ("NULL;--DROP TABLE entities;", "/*"),
    ("日本語の名前 ", " ＡＢＣ"),
    ("\ufffd\uffff\U0010fffd", "\U0001f1e9\U0001f1ea"),
    ("long ascii " + _long(2_000, _ALPHABETS[0]), ""),
    ("long noise " + _noise(2_000), ""),
    ("long cyrillic " + _long(900, _ALPHABETS[1]), ""),
)


def strange_name(kind: int, number: int) -> str:
    """Return text that is strange in the way ``kind`` (any integer) and holds ``number``."""
    before, after = STRANGE_NAMES[kind % len(STRANGE_NAMES)]
    return f"{before}{number}{after}"


_VALUES: tuple[dict[str, object], ...] = (
    {"pi": 3.1415926535897931, "third": 1 / 3, "tiny": 5e-324, "huge": 1.7976931348623157e308},
    {"beyond": 2**53 + 1, "most": 2**63 - 1, "least": -(2**63), "wide": 10**38 + 7},
    {"minus": -0.0, "one": 1.0, "none": None, "yes": True, "no": False, "empty": ""},
    {"domain": "coding", "tags": ["a", ["b", ["c", {"d": [{}, [], ""]}]]], "": "an empty key"},
    {"task": 'quote " backslash \\ slash / tab \t newline \n return \r', "tool": "%s \\N \\."},
    {"task": "\\u0041 is no escape here", "path": "C:\\temp\\new"},
    {"emoji": "🚀👩‍👩‍👧‍👦", "rtl": "שלום مرحبا\u202e", "marks": "e\u0301Z\u0351\u036b"},
    {"control": "\x01\x1f\x7f", "spaces": "  both  ", "separators": "\u2028\u2029\ufeff"},
    {"notes": _long(4_000, _ALPHABETS[0])},
    {"notes": _long(2_000, _ALPHABETS[2]), "noise": _noise(3_000)},
    {f"key {number}": {"score": number / 7, "rank": number} for number in range(40)},
)

#: JSON objects as text: with and without escapes, with spaces and without any.
STRANGE_JSON: tuple[str, ...] = (
    "{}",
    "  { }\n",
    '{"a":1,"b":[1.0,1e3,1E-7,-0,0.10000000000000001,123456789012345678901234567890.5]}',
    '{"escaped": "\\u00e9\\ud83d\\ude00\\/\\b\\f\\u001f", "plain": "é😀/"}',
    '{"twice": 1, "twice": 2}',
    *(json.dumps(value) for value in _VALUES),
    *(json.dumps(value, ensure_ascii=False, indent=1) for value in _VALUES),
)
