# SPDX-License-Identifier: Apache-2.0
"""A recipe (a TOML file, here or anywhere) and overrides of it -> the configuration of a training run."""

import dataclasses
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import fields
from enum import StrEnum
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from latentwire_train.config import ConfigError, TrainingConfig

RECIPES = Path(__file__).parent


def recipe_names() -> list[str]:
    """Return the names of the recipes that come with the package."""
    return sorted(path.stem for path in RECIPES.glob("*.toml"))


def load_config(recipe: str, overrides: Sequence[str] = ()) -> TrainingConfig:
    """Map a recipe and what shall differ from it to a configuration.

    Args:
        recipe: the name of a bundled one, or the path of a TOML file.
        overrides: such as `schedule.steps=500`; the value is TOML, or else text.

    Raises:
        ConfigError: there is no such recipe, or something in it or in an override cannot be used; the message names it.
    """
    path = RECIPES / f"{recipe}.toml" if recipe in recipe_names() else Path(recipe).expanduser()
    try:
        tables = tomllib.loads(path.read_text())
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
    config: TrainingConfig = _build(TrainingConfig, tables, "")
    return config


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
    # The two budgets exclude each other: who gives one on top of a recipe means it instead of the other.
    if keys[0] == "schedule" and keys[-1] in ("steps", "minutes") and value:
        table["minutes" if keys[-1] == "steps" else "steps"] = 0


def _build(cls: type[Any], values: Any, where: str) -> Any:
    """Map a table to a dataclass, converting and checking each value by its annotation."""
    if not isinstance(values, Mapping):
        raise ConfigError(f"{where.rstrip('.') or 'the recipe'} is {values!r}; a table is needed")
    hints = get_type_hints(cls)
    known = {entry.name for entry in fields(cls)}
    for key in values:
        if key not in known:
            raise ConfigError(
                f"{where}{key} is not known; {where.rstrip('.') or 'a recipe'} has {', '.join(sorted(known))}"
            )
    converted = {key: _convert(hints[key], value, where + key) for key, value in values.items()}
    try:
        return cls(**converted)
    except ValueError as error:
        raise ConfigError(f"{where}{error}") from error


def _convert(hint: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return _build(hint, value, f"{where}.")  # type: ignore[arg-type]
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        if value not in list(hint):
            raise ConfigError(f"{where} is {value!r}; it must be one of {', '.join(hint)}")
        return hint(value)
    if get_origin(hint) is tuple:
        items = get_args(hint)
        if not isinstance(value, list | tuple) or len(value) != len(items):
            raise ConfigError(f"{where} is {value!r}; a list of {len(items)} is needed")
        return tuple(_convert(item, part, where) for item, part in zip(items, value, strict=True))
    wanted: type[Any] = Mapping if get_origin(hint) is not None else hint
    if wanted is float and type(value) is int:
        return float(value)
    if not isinstance(value, wanted) or (wanted is int and isinstance(value, bool)):
        raise ConfigError(f"{where} is {value!r}; {'a table' if wanted is Mapping else wanted.__name__} is needed")
    return value
