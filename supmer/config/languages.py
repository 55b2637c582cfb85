"""Codes of languages, as sentence splitting takes them."""

from __future__ import annotations

import difflib
from typing import Annotated

from pydantic import BeforeValidator

NAMES = {
    "amharic": "am", "arabic": "ar", "armenian": "hy", "bengali": "bn", "bulgarian": "bg", "burmese": "my", "catalan": "ca",
    "chinese": "zh", "czech": "cs", "danish": "da", "dutch": "nl", "english": "en", "finnish": "fi", "french": "fr",
    "german": "de", "greek": "el", "gujarati": "gu", "hindi": "hi", "hungarian": "hu", "italian": "it", "japanese": "ja",
    "kannada": "kn", "kazakh": "kk", "korean": "ko", "malayalam": "ml", "marathi": "mr", "norwegian": "no", "persian": "fa",
    "polish": "pl", "portuguese": "pt", "punjabi": "pa", "romanian": "ro", "russian": "ru", "slovak": "sk", "spanish": "es",
    "swedish": "sv", "tamil": "ta", "telugu": "te", "thai": "th", "turkish": "tr", "ukrainian": "uk", "vietnamese": "vi",
}  # fmt: skip
"""English names that are suggested for what is no code."""


def _is_code(value: object) -> str:
    """Accept codes of the IANA registry (BCP 47: `en`, `pt-BR`). Others would be cut by default rules."""
    if value == "en":
        return "en"
    from langcodes import tag_is_valid  # here: 30 ms that jobs on English save

    if isinstance(value, str) and tag_is_valid(value):
        return value
    known = {**NAMES, **{code: code for code in NAMES.values()}}
    near = difflib.get_close_matches(str(value or "").lower(), known, n=3, cutoff=0.4) or ["english", "german", "chinese"]
    codes = dict.fromkeys(known[name] for name in near)
    raise ValueError(f"must be the code of a language, for example {', '.join(codes)}")


LanguageCode = Annotated[str, BeforeValidator(_is_code)]
