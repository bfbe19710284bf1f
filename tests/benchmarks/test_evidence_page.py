"""docs/evidence.md holds nothing that the committed records do not give."""

import importlib
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_committed_page_is_what_the_committed_records_give(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks" / "evidence"))
    before = set(sys.modules)
    try:
        page = importlib.import_module("page")
        assert page.written() == (ROOT / "docs" / "evidence.md").read_text()
    finally:
        for name in set(sys.modules) - before:
            if name in ("page", "found", "claims", "recommended"):
                del sys.modules[name]
