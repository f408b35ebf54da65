from __future__ import annotations

import pytest

from anonymizer.anonymize import Recipe
from anonymizer.batch import Promise
from anonymizer.hierarchy import parse_hierarchy
from anonymizer.level_hierarchy_anonymizer import LevelHierarchyAnonymizer
from anonymizer.pseudonyms import KeptIds
from service.settings.declared import SHIPPED_HIERARCHY


@pytest.fixture(scope="session")
def recipe() -> Recipe:
    """How windows are anonymized by default, but with k=2 and ids as they are."""
    hierarchy = parse_hierarchy(SHIPPED_HIERARCHY.read_text(encoding="utf-8"))
    method = LevelHierarchyAnonymizer(hierarchy=hierarchy, k=2, max_level=3, residual="regroup", imputation="mean")
    return Recipe(method=method, names=KeptIds(), promise=Promise(k=2, k_unit="record", method="hierarchy"), data_set="test")
