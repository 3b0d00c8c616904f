"""How languages are written: small and capital letters, full stops, words."""

from __future__ import annotations

import re
import unicodedata

#: Latin alphabets with a dotless and a dotted i, each with a capital of its own.
TWO_KINDS_OF_I = frozenset({"tr", "az", "crh", "gag"})

#: Languages whose first letters do not follow Unicode's common rule.
OWN_CASING = TWO_KINDS_OF_I | {"lt", "nl"}

_DOT_ABOVE = "\u0307"
_ABOVE = 230  # the combining class of marks above a letter
_DUTCH_IJ = re.compile("(I\u0301?|Í)J\u0301?")

#: Latin, fullwidth, Chinese and Japanese (also halfwidth), Indic (two), Urdu, Burmese, Khmer,
#: Ethiopic, Armenian.
FULL_STOPS = ".．。｡।॥۔။។።։"

MAX_WORDS = 128
MAX_CHARACTERS = 768  # of a text whose words are not separated by spaces
# Thai and Lao, Tibetan, Burmese, Khmer, Japanese kana, Chinese characters.
_NO_SPACES = re.compile("[\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]")


def plain_code(language: str) -> str:
    """The code of a language without a script or region after it: ``tr`` of ``tr-TR``."""
    return language.replace("_", "-").partition("-")[0].lower()


def lower_first(text: str, language: str = "en") -> str:
    """``text`` with its first letter in lower case, as its language writes it.

    Only a letter that stands first is changed, not one after a quotation mark.  Turkish and
    Azerbaijani: I becomes ı, and İ becomes i.  Dutch: IJ is one letter.  Lithuanian: i keeps its
    dot under an accent. All else as in Unicode, whose SpecialCasing.txt has these rules (but for
    the Dutch one).

    Args:
        text: May be empty.
        language: Code of the language that ``text`` is in; a script or region after it does not
            matter.
    """
    language = plain_code(language)
    if language == "nl" and (together := _DUTCH_IJ.match(text)):
        return together.group().lower() + text[together.end() :]
    end = 1
    while end < len(text) and unicodedata.combining(text[end]):
        end += 1
    return _lowered(text[:end], language) + text[end:]


def _lowered(letter: str, language: str) -> str:
    """A letter with the combining marks after it, in lower case."""
    if language in TWO_KINDS_OF_I and letter[:1] in ("I", "İ"):
        letter = unicodedata.normalize("NFC", letter)
        small = {"I": "ı", "İ": "i"}.get(letter[0], letter[0].lower())
        return small + letter[1:]
    if language == "lt" and (dotted := _dot_kept(letter)):
        return dotted
    return letter[:1].lower() + letter[1:]


def _dot_kept(letter: str) -> str | None:
    """Lithuanian I, J or Į under an accent in lower case, with its dot.

    None if it is another letter.
    """
    base, *marks = list(unicodedata.normalize("NFD", letter) or " ")
    above = [n for n, mark in enumerate(marks) if unicodedata.combining(mark) == _ABOVE]
    if base not in "IJ" or not above:
        return None
    marks.insert(above[0], _DOT_ABOVE)
    return unicodedata.normalize("NFC", base.lower() + "".join(marks))


def without_full_stop(text: str) -> str:
    """``text`` without the full stops, of any script, and the spaces at its end."""
    return text.rstrip().rstrip(FULL_STOPS).rstrip()


def words_between_spaces(text: str) -> str:
    """The first 128 words, a space between two, as the published code cuts in every language.

    A text without spaces is one word, so it stays whole; see :func:`first_words`.
    """
    return " ".join(text.split()[:MAX_WORDS])


def first_words(text: str) -> str:
    """The first 128 words, a space between two; of a text without spaces the first 768 characters.

    The published code cuts at 128 words in every language, which in Chinese keeps all.
    """
    kept = words_between_spaces(text)
    if 2 * len(_NO_SPACES.findall(kept)) <= len(kept):
        return kept
    end = MAX_CHARACTERS
    while end < len(kept) and unicodedata.category(kept[end]).startswith("M"):
        end -= 1  # never between a letter and its marks
    return kept[:end]
