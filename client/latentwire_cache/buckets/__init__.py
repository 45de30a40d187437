# SPDX-License-Identifier: Apache-2.0
"""The size of an image -> how it becomes pixels for the VAE, by the rule of a trainer.

rule = size_rule("kohya", resolution=(1024, 1024), max_bucket_reso=2048)
frame = rule.frame((1400, 900), orientation=1)
pixels = fit(pixels, frame)
"""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from latentwire_cache.buckets.ai_toolkit import AiToolkit
from latentwire_cache.buckets.diffusers import Diffusers
from latentwire_cache.buckets.fitting import fit
from latentwire_cache.buckets.frame import Frame, Size, SizeRule
from latentwire_cache.buckets.kohya import Kohya, Musubi
from latentwire_cache.buckets.pixart import PixArt, PixArtSquare
from latentwire_cache.buckets.plain import Exact, ImageNet
from latentwire_cache.buckets.simpletuner import SimpleTuner

__all__ = ["RULES", "Frame", "Size", "SizeRule", "fit", "size_rule"]

RULES: Mapping[str, Any] = {
    "kohya": Kohya,
    "musubi": Musubi,
    "ai-toolkit": AiToolkit,
    "simpletuner": SimpleTuner,
    "diffusers": Diffusers,
    "pixart": PixArt,
    "pixart-square": PixArtSquare,
    "imagenet": ImageNet,
    "exact": Exact,
}
"""The rules by name; each is a dataclass whose fields are its options."""
COMMON = ("resolution", "multiple")
"""What every rule is given, and only some need."""


def size_rule(name: str, **options: Any) -> SizeRule:
    """Map the name of a rule and its options to the rule.

    Args:
        name: a key of `RULES`.
        options: the fields of the rule. `resolution`, (width, height), and `multiple`, the VAE's downsampling factor,
            are ignored by a rule that has no such field.

    Raises:
        ValueError: the name or an option is unknown, an option is missing, or a value is refused.
    """
    if name not in RULES:
        raise ValueError(f"the rule is {name!r}; it must be one of {', '.join(RULES)}")
    known = {field.name: field for field in fields(RULES[name])}
    unknown = [option for option in options if option not in known and option not in COMMON]
    if unknown:
        own = ", ".join(each for each in known if each not in COMMON) or "no options"
        raise ValueError(f"the rule {name} has no option {unknown[0]!r}; it has {own}")
    given = {option: value for option, value in options.items() if option in known}
    if missing := [each for each in COMMON if each in known and each not in given]:
        raise ValueError(f"the rule {name} needs {missing[0]}")
    for option, value in given.items():
        _check(option, value)
    if "resolution" in given:
        width, height = given["resolution"]
        given["resolution"] = (width, height)
    rule: SizeRule = RULES[name](**given)
    return rule


def _check(option: str, value: Any) -> None:
    """Refuse a value of another type than the option's; options come from command lines."""
    if option == "resolution":
        whole = isinstance(value, list | tuple) and all(isinstance(each, int) for each in value)
        right, wanted = whole and len(value) == 2, "(width, height)"
    elif option == "resolution_type":
        right, wanted = isinstance(value, str), "a word"
    elif option in ("enable_bucket", "bucket_no_upscale", "crop"):
        right, wanted = isinstance(value, bool), "true or false"
    else:
        right, wanted = isinstance(value, int) and not isinstance(value, bool), "a whole number"
    if not right:
        raise ValueError(f"{option} is {value!r}; it must be {wanted}")
