"""The table ``upstream.HOMES``: every name is there, used, and has a test of what we rely on."""

from __future__ import annotations

import ast
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest

from nnunet_3dct import upstream
from tests.upstream.covered import TESTED

PACKAGE = Path(upstream.__file__).parent
for module in sorted(Path(__file__).parent.glob("test_*.py")):  # each notes the names that it tests
    if module.stem != Path(__file__).stem:
        import_module(f"{__package__}.{module.stem}")


@pytest.mark.parametrize("name", sorted(upstream.HOMES))
def test_name_has_a_test_of_behaviour(name: str) -> None:
    assert name in TESTED


@pytest.mark.parametrize("name", sorted(upstream.HOMES))
def test_name_is_used(name: str) -> None:
    users = [path for path in PACKAGE.rglob("*.py") if path.name != "upstream.py" and name in _imported(path)]
    assert users, f"nothing imports {name}; take it out of the table"


@cache
def _imported(path: Path) -> set[str]:
    """Names that a file imports from upstream, or reads as ``upstream.name``."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imports = (node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom))
    names = {alias.name for node in imports if node.module == "nnunet_3dct.upstream" for alias in node.names}
    attributes = (node for node in ast.walk(tree) if isinstance(node, ast.Attribute))
    return names | {n.attr for n in attributes if isinstance(n.value, ast.Name) and n.value.id == "upstream"}


@pytest.mark.parametrize("name", sorted(upstream.HOMES))
def test_name_is_the_one_of_its_home(name: str) -> None:
    assert getattr(upstream, name) is getattr(import_module(upstream.HOMES[name]), name)


def test_name_that_is_not_in_the_table_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'pad_bbox'"):
        upstream.pad_bbox  # noqa: B018
