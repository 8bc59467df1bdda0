"""What is installed where: our files stand beside nnU-Net's, never in their place."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import zipfile
from importlib.metadata import files
from pathlib import Path

import pytest
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

import nnunet_3dct
import nnunetv2

REPOSITORY = Path(__file__).parents[1]
UPSTREAM = Path(nnunetv2.__file__).parent
AT_NNUNETS_PATHS = sorted((REPOSITORY / "nnunetv2").rglob("*.py"))
MAIN_CALLS = ("if __name__ == '__main__':\n    main()", "if __name__ == '__main__':\n    raise SystemExit(main())")


def test_no_init_file_makes_our_folder_shadow_nnunet() -> None:
    own = {path.parent.relative_to(REPOSITORY / "nnunetv2") for path in REPOSITORY.glob("nnunetv2/**/__init__.py")}
    assert own == {Path("training/nnUNetTrainer/variants/multi_task")}


def test_import_from_the_repository_root_gives_the_installed_nnunet() -> None:
    found = subprocess.run(
        [sys.executable, "-c", "import nnunetv2; print(nnunetv2.__file__)"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    assert Path(found).parent == UPSTREAM != REPOSITORY / "nnunetv2"


def test_no_installed_file_is_claimed_by_both_packages() -> None:
    ours = {str(path) for path in files("nnunet-3dct") or []}
    theirs = {str(path) for path in files("nnunetv2") or []}
    assert any(path.startswith("nnunetv2/") for path in ours)
    assert not ours & theirs


@pytest.mark.parametrize("source", AT_NNUNETS_PATHS, ids=lambda path: path.stem)
def test_files_at_nnunets_paths_hold_no_logic(source: Path) -> None:
    """A docstring, imports, ``__all__`` and the call of a command's ``main``."""
    for node in ast.parse(source.read_text(encoding="utf-8")).body:
        text = ast.unparse(node)
        allowed = (
            isinstance(node, ast.Import | ast.ImportFrom)
            or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
            or (isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__")
            or text in MAIN_CALLS
        )
        assert allowed, f"{source.name}, line {node.lineno}: {text}"


@pytest.mark.parametrize("source", AT_NNUNETS_PATHS, ids=lambda path: path.stem)
def test_files_at_nnunets_paths_are_installed_as_they_are(source: Path) -> None:
    installed = UPSTREAM / source.relative_to(REPOSITORY / "nnunetv2")
    assert installed.read_text() == source.read_text(), "run pip install -e . again"


@pytest.mark.parametrize(
    "name",
    [
        "nnUNetTrainer_CLSHeadSum",
        "nnUNetTrainer_CLSHeadSumFT",
        "nnUNetTrainer_CLSHeadSimple",
        "nnUNetTrainer_CLSHeadSepOpt",
        "nnUNetTrainer_CLSHeadMA",
        "nnUNetTrainer_CLSHeadLesion",
        "nnUNetTrainer_Stage1",
        "nnUNetTrainer",
        "nnUNetTrainer_5epochs",
    ],
)
def test_trainer_is_found_by_nnunets_own_search(name: str) -> None:
    assert recursive_find_trainer_class_by_name(name).__name__ == name


@pytest.mark.parametrize("script", ["train.sh", "inf.sh", "eval.sh", "benchmarks/hippocampus.sh"])
def test_script_explains_itself_and_refuses_unknown_arguments(script: str) -> None:
    path = REPOSITORY / script
    helped = subprocess.run(["bash", path, "--help"], capture_output=True, text=True, check=True)
    assert "Usage" in helped.stdout
    refused = subprocess.run(["bash", path, "--nonsense", "more"], capture_output=True, text=True, check=False)
    assert refused.returncode != 0 and "Usage" in refused.stderr
    assert "set -euo pipefail" in path.read_text()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel, built from the working tree without a network."""
    build = pytest.importorskip("hatchling.build", reason="hatchling, which builds the wheel, is not installed here")
    folder = tmp_path_factory.mktemp("wheel")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(REPOSITORY)
        return zipfile.ZipFile(folder / build.build_wheel(str(folder)))


def test_wheel_holds_our_files_at_both_places_the_licence_and_the_mark_of_types(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    info = f"nnunet_3dct-{nnunet_3dct.__version__}.dist-info"
    assert {"nnunet_3dct/py.typed", f"{info}/licenses/LICENSE", f"{info}/licenses/NOTICE"} <= names
    ours = {path.relative_to(REPOSITORY).as_posix() for path in AT_NNUNETS_PATHS}
    assert {name for name in names if name.startswith("nnunetv2/")} == ours
    templates = (REPOSITORY / "nnunet_3dct").rglob("*.html")
    assert {path.relative_to(REPOSITORY).as_posix() for path in templates} <= names


def test_wheel_states_version_and_licence(wheel: zipfile.ZipFile) -> None:
    metadata = wheel.read(f"nnunet_3dct-{nnunet_3dct.__version__}.dist-info/METADATA").decode()
    assert f"\nVersion: {nnunet_3dct.__version__}\n" in metadata
    assert "\nLicense-Expression: Apache-2.0\n" in metadata


def test_changelog_and_citation_have_the_version_of_the_package() -> None:
    citation = (REPOSITORY / "CITATION.cff").read_text(encoding="utf-8")
    assert re.search(r"^version: (.+)$", citation, flags=re.MULTILINE).group(1) == nnunet_3dct.__version__
    changelog = (REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.findall(r"^## \[(.+?)\]", changelog, flags=re.MULTILINE)[:2] == ["Unreleased", nnunet_3dct.__version__]
    assert "version =" not in (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8").partition("[tool.ruff]")[0]
