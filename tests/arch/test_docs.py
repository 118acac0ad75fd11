"""What the documents claim, a test shows: every test they name exists."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_test_that_a_document_names_exists(document):
    named = set(re.findall(r"`(test_\w+)`", document.read_text()))
    written = {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", path.read_text(), flags=re.MULTILINE)
    }
    assert named - written == set()


def test_the_page_on_delivery_names_the_chaos_tests():
    page = (ROOT / "docs" / "how-delivery-works.md").read_text()
    assert len(set(re.findall(r"`(test_\w+)`", page))) > 30
