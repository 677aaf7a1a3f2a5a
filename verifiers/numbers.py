"""Exact numbers as people and models write them, and one text for each value."""

from __future__ import annotations

import re
from fractions import Fraction

from samplewise.verifiers.answers import clean, only_number

__all__ = ["canonical_number", "parse_number", "single_number"]

_MAX_CHARS = 400
_MAX_EXPONENT = 400
_MAX_DECIMALS = 50

_LATEX = (
    (re.compile(r"\\[,!;:> ]|\\q?quad(?![A-Za-z])|~|\{,\}(?!\d{3})"), " "),
    (re.compile(r"\{,\}"), ","),
    (re.compile(r"(?<=\d) (?=\d{3}(?: \d{3})*(?![\d/ ]))"), ""),  # 1 000 000
    (
        re.compile(r"\\[dt]?frac\s*(?:\{\s*(\d+)\s*\}|(\d))\s*(?:\{\s*(\d+)\s*\}|(\d))"),
        r" \1\2/\3\4",
    ),
    (
        re.compile(r"\s*(?:\\times|\\cdot|\u00d7)\s*10\s*\^\s*(?:\{\s*([-+]?\d+)\s*\}|(\d))"),
        r"e\1\2",
    ),
    (re.compile(r"\\[%$]|\\left|\\right"), lambda match: "%" if match[0] == r"\%" else ""),
    (re.compile(r"[$\u20ac\u00a3]"), ""),
    (re.compile(r"\s*\^\s*(?:\\circ(?![A-Za-z])|\{\\circ\})"), "\u00b0"),
    (re.compile("\u2212"), "-"),
    (re.compile(r"(?<![\w)\]}])([-+])\s+(?=[.\d])"), r"\1"),
)
_EXACT = re.compile(
    r"(?P<sign>[-+]?)(?:(?P<whole>\d+)\s+(?=\d+/))?"
    r"(?P<number>(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d*)?)(?:[eE](?P<exponent>[-+]?\d{1,4}))?"
    r"(?:/(?P<under>\d+))?\s?(?P<percent>%?)"
)
# Around the only number, these mean that the number alone is not the value.
_ALGEBRA = re.compile(
    r"\\(?!text|mathrm|mathbf|circ)[A-Za-z]+|[\^*/+|<>~\u221a\u03c0\u2264\u2265]"
    r"|(?<![A-Za-z])-|-(?![A-Za-z])|\b(?:not|pi|sqrt|hundred|thousand|million|billion|trillion)\b",
    re.IGNORECASE,
)
_FACTOR = re.compile(r"[A-Za-z](?![A-Za-z])|pi\b|[(!]")


def parse_number(text: str, *, percent: bool = True) -> Fraction | None:
    r"""Return the exact value of a text that is one number, or None.

    Reads signs, thousands separators (comma, thin space), decimals, exponents, `\times 10^{n}`,
    fractions (`1/2`, `\frac{1}{2}`, `1 1/2`), currency signs, and percent (divided by 100 unless
    `percent` is false). Above 400 characters or an exponent of 400 there is no number.
    """
    if len(text) > _MAX_CHARS:
        return None
    found = _EXACT.fullmatch(_plain(text))
    if found is None or not any(char.isdigit() for char in found["number"]):
        return None
    exponent = int(found["exponent"] or 0)
    under = int(found["under"] or 1)
    if abs(exponent) > _MAX_EXPONENT or under == 0:
        return None
    value = (
        Fraction(found["number"].replace(",", "").rstrip(".")) * Fraction(10) ** exponent / under
    )
    value += int(found["whole"] or 0)
    value = -value if found["sign"] == "-" else value
    return value / 100 if found["percent"] and percent else value


def single_number(answer: str, *, percent: bool = True) -> Fraction | None:
    """Return the value of an answer that holds one number, perhaps with a name or a unit.

    `x = 5`, `5 km` and `$5.00` hold one. A list, `2x` or `7 or 8` do not.
    """
    if len(answer) > _MAX_CHARS:
        return None
    value = parse_number(answer, percent=percent)
    parts = only_number(_plain(answer)) if value is None else None
    if parts is None:
        return value
    before, number, behind = parts
    if _ALGEBRA.search(before) or _ALGEBRA.search(behind) or _FACTOR.match(behind):
        return None
    return parse_number(number, percent=percent)


def canonical_number(value: Fraction) -> str:
    """Return one text per value: decimal when that is exact and short, else a fraction."""
    for decimals in range(_MAX_DECIMALS + 1):
        if 10**decimals % value.denominator == 0:
            break
    else:
        return f"{value.numerator}/{value.denominator}"
    scaled = abs(value.numerator) * 10**decimals // value.denominator
    digits = str(scaled).rjust(decimals + 1, "0")
    sign = "-" if value < 0 else ""
    if decimals == 0:
        return sign + digits
    return f"{sign}{digits[:-decimals]}.{digits[-decimals:]}"


def _plain(text: str) -> str:
    text = clean(text)
    for pattern, replacement in _LATEX:
        text = pattern.sub(replacement, text)
    return text.strip()
