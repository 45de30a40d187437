# SPDX-License-Identifier: Apache-2.0
"""A recipe (a TOML file) and overrides of its values -> the configuration of a training run."""

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

from pydantic import TypeAdapter, ValidationError

from latentwire_train.config import ConfigError, TrainingConfig

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

RECIPES = Path(__file__).parent


def recipe_names() -> list[str]:
    """Return the names of the recipes that come with the package."""
    return sorted(path.stem for path in RECIPES.glob("*.toml"))


def load_config(recipe: str, overrides: Sequence[str] = ()) -> TrainingConfig:
    """Map a bundled recipe or a TOML file, and overrides of its values, to a configuration.

    An override is such as `schedule.steps=500`; the value is TOML, or else text.

    Raises:
        ConfigError: there is no such recipe, or a key or value of it or of an override cannot be used.
    """
    path = RECIPES / f"{recipe}.toml" if recipe in recipe_names() else Path(recipe).expanduser()
    try:
        tables = tomllib.loads(path.read_text("utf-8-sig"))
    except OSError as error:
        raise ConfigError(
            f"no recipe {recipe!r}: it is neither a bundled one ({', '.join(recipe_names())}) nor a file that can be "
            f"read ({error.strerror})"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}") from error
    for override in overrides:
        _override(tables, override)
    return config_from(tables)


def config_from(tables: Mapping[str, Any]) -> TrainingConfig:
    """Map tables as `TrainingConfig.as_dict` gives them, or parts of them, to a configuration.

    Raises:
        ConfigError: a key is unknown or a value cannot be used.
    """
    try:
        # From JSON, because pydantic's strict mode takes no text for an enum from Python.
        return TypeAdapter(TrainingConfig).validate_json(json.dumps(tables, default=str))
    except ValidationError as error:
        raise ConfigError(_refusal(error.errors()[0])) from error


def _refusal(error: "ErrorDetails") -> str:
    """Map pydantic's first error to a message that names section and key."""
    path = [str(part) for part in error["loc"]]
    where = ".".join(path)
    if error["type"] == "unexpected_keyword_argument":
        section: Any = TrainingConfig
        for name in path[:-1]:
            section = get_type_hints(section)[name]
        known = ", ".join(sorted(field.name for field in fields(section)))
        return f"{where} is not known; {'.'.join(path[:-1]) or 'a recipe'} has {known}"
    if error["type"] == "missing":
        return f"{where} is missing"
    return f"{where} is {error['input']!r}; {error['msg'].replace('Input should be', 'it must be')}"


def _override(tables: dict[str, Any], override: str) -> None:
    name, equals, text = override.partition("=")
    keys = name.strip().split(".")
    if not equals or len(keys) < 2 or not all(keys):
        raise ConfigError(f"{override!r} is not of the form section.key=value, such as schedule.steps=500")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    table = tables
    for key in keys[:-1]:
        table = table.setdefault(key, {})
        if not isinstance(table, dict):
            raise ConfigError(f"{override!r}: {key} is a value, not a table")
    table[keys[-1]] = value
    # The two budgets exclude each other: an override of one takes the place of the recipe's other.
    if keys[0] == "schedule" and keys[-1] in ("steps", "minutes") and value:
        table["minutes" if keys[-1] == "steps" else "steps"] = 0
