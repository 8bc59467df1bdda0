"""What ``import nnunet_3dct`` offers: it loads nothing, every name is there, and its example does what it says."""

from __future__ import annotations

import ast
import doctest
import inspect
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import nnunet_3dct
from tests import toy
from tests.dicom import makers
from tests.utils import write_volume

NAMES = sorted(set(nnunet_3dct.__all__) - {"__version__"})
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE | doctest.IGNORE_EXCEPTION_DETAIL
HEAVY = ("torch", "numpy", "scipy", "sklearn", "SimpleITK", "nibabel", "matplotlib", "nnunetv2", "openvino", "pydicom")


@pytest.fixture(scope="session")
def held_out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six cases that the toy model has not seen: ``images``, ``labels`` and ``classification.json``; read only."""
    root = tmp_path_factory.mktemp("held_out")
    toy.write_toy_inputs(root / "images", range(6))
    for n in range(6):
        write_volume(root / "labels" / f"new_{n:03d}.nii.gz", toy.toy_volume(100 + n)[1])
    classes = {f"new_{n:03d}": (100 + n) % 3 for n in range(6)}
    (root / "classification.json").write_text(json.dumps(classes))
    return root


@pytest.fixture(scope="session")
def predicted(held_out: Path, trained_results: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The held-out cases predicted by the toy model; read only."""
    from nnunet_3dct.cli.predict import main

    output = tmp_path_factory.mktemp("predicted")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("nnUNet_results", str(trained_results))
        environment.setenv("NNUNET3DCT_CACHE", str(output.parent / "converted"))
        arguments = ["-i", held_out / "images", "-o", output, "-d", toy.DATASET, "-c", "3d_fullres", "-f", "0"]
        arguments += ["-tr", toy.FINE_TUNING, "-p", toy.PLANS, "-device", "cpu", "--backend", "torch"]
        main([str(argument) for argument in [*arguments, "--disable_tta", "--disable_progress_bar"]])
    return output


@pytest.fixture
def example_globals(
    toy_root: Path, held_out: Path, predicted: Path, nnunet: Path, trained_results: Path, tmp_path: Path
) -> dict[str, Any]:
    """The names that the examples in docstrings use, all of them paths."""
    source = toy.trained_folder(trained_results, toy.FINE_TUNING)
    model = shutil.copytree(source, nnunet / toy.DATASET / source.name)
    folders = {"raw": toy_root / "raw" / toy.DATASET, "images": held_out / "images", "labels": held_out / "labels"}
    copies = {name: shutil.copytree(folder, tmp_path / name) for name, folder in folders.items()}
    (tmp_path / "tmp").mkdir()
    makers.write_series(tmp_path / "series", toy.toy_volume(100)[0], spacing=(1.0, 1.0, 1.0))
    return {
        **copies,
        "predictions": shutil.copytree(predicted, tmp_path / "predictions"),
        "dataset_json": copies["raw"] / "dataset.json",
        "classes": Path(shutil.copy(held_out / "classification.json", tmp_path)),
        "model": model,
        "image": copies["images"] / "new_000_0000.nii.gz",
        "series": tmp_path / "series",
        "tmp": tmp_path / "tmp",
    }


def examples(value: object, name: str) -> list[doctest.DocTest]:
    """Doctests in the docstring of ``value`` and, for a class, of its public methods."""
    found = doctest.DocTestFinder(exclude_empty=True).find(value, name)
    return [test for test in found if test.examples]


def run(test: doctest.DocTest, names: dict[str, Any]) -> None:
    test.globs = dict(names)
    reported: list[str] = []
    doctest.DocTestRunner(optionflags=OPTIONS, verbose=False).run(test, out=reported.append)
    assert not reported, "".join(reported)


def test_importing_the_package_loads_none_of_the_libraries() -> None:
    code = f"import sys, nnunet_3dct; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", [name for name in NAMES if name.endswith("Error")])
def test_errors_load_none_of_the_libraries(name: str) -> None:
    code = f"import sys, nnunet_3dct; nnunet_3dct.{name}; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", NAMES)
def test_name_is_there_and_its_docstring_has_an_example(name: str) -> None:
    value = getattr(nnunet_3dct, name)
    assert value.__name__.startswith(name) or name == "register_head"
    assert re.search(r"^\s*Examples:\n", inspect.getdoc(value) or "", flags=re.MULTILINE), f"{name} has no example"
    assert examples(value, name), f"the section Examples of {name} holds no >>> lines"


@pytest.mark.parametrize("name", NAMES)
def test_example_does_what_it_says(name: str, example_globals: dict[str, Any]) -> None:
    for test in examples(getattr(nnunet_3dct, name), name):
        run(test, example_globals)


def test_example_of_the_package_does_what_it_says(example_globals: dict[str, Any]) -> None:
    (test,) = [test for test in examples(nnunet_3dct, "nnunet_3dct") if test.name == "nnunet_3dct"]
    run(test, example_globals)


def test_every_error_of_the_package_is_public() -> None:
    from nnunet_3dct import errors

    classes = [name for name, value in vars(errors).items() if inspect.isclass(value) and name.endswith("Error")]
    assert set(classes) <= set(nnunet_3dct.__all__)
    for name in classes:
        assert issubclass(getattr(nnunet_3dct, name), nnunet_3dct.NNUNet3DCTError)


def test_type_checkers_and_python_find_the_same_names() -> None:
    tree = ast.parse(Path(nnunet_3dct.__file__).read_text(encoding="utf-8"))
    (checked,) = [node for node in tree.body if isinstance(node, ast.If)]
    homes = {
        alias.name: node.module.removeprefix("nnunet_3dct.")
        for node in checked.body
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
    }
    assert homes == nnunet_3dct._HOMES
    assert set(homes) | {"__version__"} == set(nnunet_3dct.__all__)


def test_dir_lists_names_that_are_not_loaded_yet() -> None:
    code = "import nnunet_3dct; print(set(nnunet_3dct.__all__) <= set(dir(nnunet_3dct)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True"


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'predictor_of_all'"):
        nnunet_3dct.predictor_of_all  # noqa: B018


@pytest.mark.parametrize("name", [name for name in NAMES if not name.endswith("Error")])
def test_no_public_signature_holds_a_bare_dictionary(name: str) -> None:
    value = getattr(nnunet_3dct, name)
    methods = [value, *(m for n, m in vars(value).items() if not n.startswith("_"))] if inspect.isclass(value) else []
    for function in [*methods, value]:
        if not callable(function):
            continue
        annotations = [str(p.annotation) for p in inspect.signature(function).parameters.values()]
        annotations.append(str(inspect.signature(function).return_annotation))
        bare = [text for text in annotations if re.search(r"\b[Dd]ict\[str, (typing\.)?Any\]", text)]
        assert not bare, f"{name}: {bare}; use a dataclass or a TypedDict"


def test_example_of_the_readme_runs(example_globals: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    code = readme.partition("## From Python")[2].partition("```python\n")[2].partition("```")[0]
    names = {
        "model_folder": example_globals["model"],
        "image_file": example_globals["image"],
        "labels_folder": example_globals["labels"],
        "predictions_folder": example_globals["predictions"],
        "dataset_json": example_globals["dataset_json"],
    }
    exec(code, names)
    assert "(16, 24, 24)" in capsys.readouterr().out
