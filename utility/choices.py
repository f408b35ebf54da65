"""The configurations that are compared, each as settings for `.env`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from anonymizer.anonymize import Recipe
from anonymizer.errors import ConfigurationError
from anonymizer.hierarchy import Hierarchy
from recognition.trial import AS_MEASURED
from service.settings.declared import SHIPPED_HIERARCHY, Settings
from service.settings.load import load
from service.wiring.recipe import load_hierarchy, make_recipe

#: A file that does not exist, so that a user's `.env` has no effect.
_NO_ENV_FILE = Path(__file__).with_name("no.env")


@dataclass(frozen=True)
class Choice:
    """One configuration.

    Args:
        name: Its name in tables.
        settings: Names and values as in `.env`; all others have their defaults.
    """

    name: str
    settings: Mapping[str, str] = field(default_factory=dict)

    def __hash__(self) -> int:
        return hash(self.name)

    @property
    def by_source(self) -> bool:
        """Whether k counts sources."""
        return self.settings.get("K_UNIT") == "source"

    @property
    def removes_shapes(self) -> bool:
        """Whether k counts nothing, because no value is kept."""
        return self.settings.get("METHOD") == "rhythm"


#: Nothing done: what the ways to anonymize are compared with.
RAW = Choice(AS_MEASURED)
CLASSIC = Choice("classic", {"METHOD": "hierarchy", "MAX_LEVEL": "7", "RESIDUAL": "impute", "IMPUTATION": "midpoint"})
DEFAULT = Choice("default")
OPTIMAL = Choice("optimal", {"METHOD": "optimal"})
RECORD = Choice("record", {"K_UNIT": "record"})
SOURCE = Choice("source", {"K_UNIT": "source"})
RHYTHM = Choice("rhythm", {"METHOD": "rhythm"})
SOURCE_OPTIMAL = Choice("source, optimal", {"K_UNIT": "source", "METHOD": "optimal"})


def recipe_of(choice: Choice, *, k: int, window_s: int) -> Recipe:
    """Return the service's recipe for these settings; source ids stay unchanged.

    Raises:
        ConfigurationError: The service would refuse them.
    """
    settings = _settings_of({**choice.settings, "K_VALUE": str(k), "BATCH_SIZE_SECONDS": str(window_s)})
    hierarchy = _hierarchy(settings.hierarchy_csv_path) if settings.method != "rhythm" else None
    return make_recipe(settings, hierarchy, "utility")


def is_available(choice: Choice) -> bool:
    """Return whether this version of the service takes these settings."""
    try:
        recipe_of(choice, k=5, window_s=5)
    except ConfigurationError:
        return False
    return True


def _settings_of(given: Mapping[str, str]) -> Settings:
    # INPUT_FILE only has to exist; nothing is read from it.
    return load(_NO_ENV_FILE, {"INPUT_FILE": str(SHIPPED_HIERARCHY), "OUTPUT_TO_INFLUX": "false", **given}).settings


@cache
def _hierarchy(path: str) -> Hierarchy | None:
    return load_hierarchy(_settings_of({"HIERARCHY_CSV_PATH": path}))
