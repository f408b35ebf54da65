"""How windows are anonymized: hierarchy, method, pseudonyms, and the promise that batches state."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from anonymizer.anonymize import Method, Names, Recipe
from anonymizer.batch import Promise
from anonymizer.errors import ConfigurationError
from anonymizer.hierarchy import Hierarchy, HierarchyProblem, parse_hierarchy
from anonymizer.level_hierarchy_anonymizer import LevelHierarchyAnonymizer
from anonymizer.optimal_anonymizer import OptimalAnonymizer
from anonymizer.pseudonyms import KeptIds, Pseudonymizer, derived_key, stretched
from anonymizer.public_beat import TEMPLATE_DIGEST
from anonymizer.rhythm_anonymizer import BeatDetector, RhythmAnonymizer
from detection.sleepecg_detector import SleepecgDetector
from service.settings.declared import SHIPPED_HIERARCHY, Settings


def load_hierarchy(settings: Settings) -> Hierarchy | None:
    """Return the hierarchy that the settings name; None where the method uses none.

    Raises:
        ConfigurationError: It cannot be read or is not a hierarchy; with every problem and its row.
    """
    if settings.method == "rhythm":
        return None
    path = Path(settings.hierarchy_csv_path) if settings.hierarchy_csv_path else SHIPPED_HIERARCHY
    try:
        return parse_hierarchy(path.read_text(encoding="utf-8-sig"))
    except HierarchyProblem as error:
        raise ConfigurationError([f"HIERARCHY_CSV_PATH {path}: {problem}" for problem in error.problems]) from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"HIERARCHY_CSV_PATH {path} is not UTF-8 text") from None
    except OSError as error:
        raise ConfigurationError(f"HIERARCHY_CSV_PATH {path} cannot be read ({error.strerror})") from None


def make_recipe(settings: Settings, hierarchy: Hierarchy | None, data_set: str) -> Recipe:
    """Return how windows are anonymized."""
    names: Names = KeptIds()
    key_id = ""
    if settings.pseudonymize_source_id:
        names = pseudonymizer = Pseudonymizer(pseudonym_key(settings))
        key_id = pseudonymizer.key_id
    return Recipe(
        method=make_method(settings, hierarchy),
        names=names,
        promise=_make_promise(settings, hierarchy, key_id),
        data_set=data_set,
        # A public beat is not to be like the heart's.
        measures_fidelity=settings.utility_metrics and settings.method != "rhythm",
    )


def make_method(settings: Settings, hierarchy: Hierarchy | None) -> Method:
    """Return what makes released values of measured ones.

    Raises:
        ConfigurationError: It needs a library that is not installed.
    """
    if settings.method == "rhythm":
        return RhythmAnonymizer(make_detector())
    assert hierarchy is not None, "every other method needs one"
    if settings.method == "optimal":
        return OptimalAnonymizer(hierarchy=hierarchy, k=settings.k_value, k_unit=settings.k_unit)
    return LevelHierarchyAnonymizer(
        hierarchy=hierarchy,
        k=settings.k_value,
        max_level=settings.max_level,
        residual=settings.residual,
        imputation=settings.imputation,
        k_unit=settings.k_unit,
    )


def make_detector() -> BeatDetector:
    """Return what finds heartbeats.

    Raises:
        ConfigurationError: Its library is not installed.
    """
    return SleepecgDetector()


def _make_promise(settings: Settings, hierarchy: Hierarchy | None, key_id: str) -> Promise:
    digest = settings_digest(settings, hierarchy)
    if settings.method == "rhythm":
        return Promise(method=settings.method, settings_digest=digest, key_id=key_id, template_digest=TEMPLATE_DIGEST)
    return Promise(settings.k_value, settings.k_unit, settings.method, digest, key_id)


def settings_digest(settings: Settings, hierarchy: Hierarchy | None) -> str:
    """Return a digest of every setting that affects values, 16 hexadecimal digits; filters and paths are not part of it."""
    if settings.method == "rhythm":
        rhythm = {"method": settings.method, "window_s": settings.batch_size_seconds, "template": TEMPLATE_DIGEST}
        return hashlib.sha256(json.dumps(rhythm, sort_keys=True).encode()).hexdigest()[:16]
    assert hierarchy is not None, "every other method needs one"
    shaping = {
        "k": settings.k_value,
        "k_unit": settings.k_unit,
        "window_s": settings.batch_size_seconds,
        "method": settings.method,
        "max_level": settings.max_level,
        "residual": settings.residual,
        "imputation": settings.imputation,
        "hierarchy": hierarchy.digest,
    }
    return hashlib.sha256(json.dumps(shaping, sort_keys=True).encode()).hexdigest()[:16]


def pseudonym_key(settings: Settings) -> bytes:
    """Return the key that pseudonyms are made with: that of PSEUDONYM_SALT, or one derived from it for PSEUDONYM_PURPOSE."""
    key = stretched(settings.pseudonym_salt.key())
    return derived_key(key, f"pseudonyms for {settings.pseudonym_purpose}") if settings.pseudonym_purpose else key
