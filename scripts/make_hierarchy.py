"""Print the hierarchy file that ships with the project: `python scripts/make_hierarchy.py > anonymizer/smarko_hierarchy_ecg.csv`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from anonymizer.hierarchy import make_hierarchy_text

FIRST_LEAF_UV, LAST_LEAF_UV = -2500, 2500
WIDTHS_UV = (2, 4, 8, 16, 32, 64, 256)


def main() -> None:
    """Write the hierarchy to standard output."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    sys.stdout.write(make_hierarchy_text(FIRST_LEAF_UV, LAST_LEAF_UV, WIDTHS_UV))


if __name__ == "__main__":
    main()
