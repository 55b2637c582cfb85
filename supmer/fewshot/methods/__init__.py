"""The methods that few-shot results compare (section 7). To add one, write a file like these and name it here."""

from __future__ import annotations

from supmer.fewshot.methods import bitfit, fine_tuning, lora, perfect, ppt, prefix_tuning, prompt_tuning, supmer, zero_shot
from supmer.fewshot.tuning import Method

METHODS: dict[str, Method] = {
    "zero_shot": zero_shot.METHOD,
    "fine_tuning": fine_tuning.METHOD,
    "prompt_tuning": prompt_tuning.METHOD,
    "ppt": ppt.METHOD,
    "unified_ppt": ppt.UNIFIED,
    "supmer_no_regularizer": supmer.NO_REGULARIZER,
    "supmer": supmer.METHOD,
    "perfect": perfect.METHOD,
    "lora": lora.METHOD,
    "prefix_tuning": prefix_tuning.METHOD,
    "bitfit": bitfit.METHOD,
}
