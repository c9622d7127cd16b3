"""Large letters for a code that is read off a screen, and typed somewhere else."""

from __future__ import annotations

from typing import Final

_BANDS: Final = (
    (
        "ABCDEFGHIJKLM",
        ".###. ####. .#### ####. ##### ##### .#### #...# .###. ...## #...# #.... #...#",
        "#...# #...# #.... #...# #.... #.... #.... #...# ..#.. ....# #..#. #.... ##.##",
        "##### ####. #.... #...# ####. ####. #..## ##### ..#.. ....# ###.. #.... #.#.#",
        "#...# #...# #.... #...# #.... #.... #...# #...# ..#.. #...# #..#. #.... #...#",
        "#...# ####. .#### ####. ##### #.... .#### #...# .###. .###. #...# ##### #...#",
    ),
    (
        "NOPQRSTUVWXYZ",
        "#...# .###. ####. .###. ####. .#### ##### #...# #...# #...# #...# #...# #####",
        "##..# #...# #...# #...# #...# #.... ..#.. #...# #...# #...# .#.#. .#.#. ...#.",
        "#.#.# #...# ####. #.#.# ####. .###. ..#.. #...# .#.#. #.#.# ..#.. ..#.. ..#..",
        "#..## #...# #.... #..#. #..#. ....# ..#.. #...# .#.#. ##.## .#.#. ..#.. .#...",
        "#...# .###. #.... .##.# #...# ####. ..#.. .###. ..#.. #...# #...# ..#.. #####",
    ),
    (
        "0123456789-",
        ".###. ..#.. .###. ####. #..#. ##### .###. ##### .###. .###. .....",
        "#..## .##.. #...# ....# #..#. #.... #.... ....# #...# #...# .....",
        "#.#.# ..#.. ..##. .###. ##### ####. ####. ...#. .###. .#### .###.",
        "##..# ..#.. .#... ....# ...#. ....# #...# ..#.. #...# ....# .....",
        ".###. .###. ##### ####. ...#. ####. .###. ..#.. .###. .###. .....",
    ),
)
_DOTS: Final = 5
_HALVES: Final = {"..": " ", "#.": "\u2580", ".#": "\u2584", "##": "\u2588"}
"""A cell of a terminal by its upper and its lower half."""

_GLYPHS: Final = {
    letter: tuple(row.split()[place] for row in rows)
    for letters, *rows in _BANDS
    for place, letter in enumerate(letters)
}


def large(text: str, width: int) -> tuple[str, ...]:
    """Return *text* in three lines of at most *width* columns.

    Nothing if it does not fit, or has other signs than capitals, digits and dashes.
    """
    glyphs = [_GLYPHS.get(sign) for sign in text]
    if not text or None in glyphs or len(text) * (_DOTS + 1) - 1 > width:
        return ()
    drawn = [glyph for glyph in glyphs if glyph is not None]
    dots = [".".join(glyph[row] for glyph in drawn) for row in range(_DOTS)]
    dots.append("." * len(dots[0]))
    return tuple(
        "".join(
            _HALVES[upper + lower] for upper, lower in zip(dots[row], dots[row + 1], strict=True)
        ).rstrip()
        for row in range(0, len(dots), 2)
    )
