from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
import types
from pathlib import Path

import pytest

from nnunet_3dct.data import installation as install
from nnunet_3dct.data.installation import (
    EXT_TRAINERS,
    TRAINER_FOLDER,
    NNUNetLocation,
    check_cpu_prediction,
    check_device,
    check_folders,
    check_nnunet_version,
    check_torchvision,
    check_trainer_search,
    check_trainers,
)
from nnunet_3dct.training import variants as trainers

PROJECT = Path(install.__file__).parents[2]


def put_trainers(package: Path) -> Path:
    folder = package / TRAINER_FOLDER
    folder.mkdir(parents=True)
    (folder / "nnUNetTrainer_CLSHeadSum.py").write_text("")
    return package


def fake_module(monkeypatch: pytest.MonkeyPatch, name: str, **attributes: object) -> None:
    module = types.ModuleType(name)
    vars(module).update(attributes)
    monkeypatch.setitem(sys.modules, name, module)


def test_versions_that_fit_pass() -> None:
    finding = check_torchvision()
    assert finding.ok, finding.message
    assert importlib.metadata.version("torch") in finding.message


def test_torchvision_of_another_torch_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    def nms(*_: object) -> None:
        raise RuntimeError("operator torchvision::nms does not exist")

    fake_module(monkeypatch, "torchvision.ops", nms=nms)
    finding = check_torchvision()
    assert not finding.ok
    for words in (
        f"torch {importlib.metadata.version('torch')}",
        "torchvision::nms does not exist",
        "pip install",
    ):
        assert words in finding.message


def test_missing_torchvision_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision.ops", None)
    assert "ModuleNotFoundError" in check_torchvision().message


@pytest.mark.parametrize(("version", "ok"), [("2.8.1", True), ("2.8.3", True), ("2.6.0", False), ("2.80.0", False)])
def test_version_of_nnunet(monkeypatch: pytest.MonkeyPatch, version: str, ok: bool) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda name: version)
    finding = check_nnunet_version()
    assert finding.ok is ok
    assert ok or f"found {version}. Run `pip install" in finding.message


def test_trainers_inside_the_package_pass(tmp_path: Path) -> None:
    location = NNUNetLocation(put_trainers(tmp_path), (), installed=True, editable=False)
    assert check_trainers(location, "").ok


def test_package_without_our_trainers_fails_and_names_the_folder_to_set(tmp_path: Path) -> None:
    finding = check_trainers(NNUNetLocation(tmp_path, (), installed=True, editable=False), "/elsewhere")
    assert not finding.ok
    assert f"expected them in {tmp_path / TRAINER_FOLDER}" in finding.message
    assert f'export nnUNet_extTrainer="{EXT_TRAINERS}"' in finding.message


def test_editable_nnunet_is_explained_and_the_variable_mends_it(tmp_path: Path) -> None:
    copy = put_trainers(tmp_path / "site-packages" / "nnunetv2")
    location = NNUNetLocation(tmp_path / "source", (copy,), installed=True, editable=True)
    finding = check_trainers(location, "")
    assert not finding.ok
    assert f"found them in {copy} (nnU-Net is an editable install" in finding.message
    assert check_trainers(location, os.pathsep.join(["/elsewhere", str(EXT_TRAINERS)])).ok


def test_hidden_nnunet_is_told_from_a_missing_one(tmp_path: Path) -> None:
    copies = (tmp_path / "nnunetv2",)
    hidden = check_trainers(NNUNetLocation(None, copies, installed=True, editable=True), str(EXT_TRAINERS))
    missing = check_trainers(NNUNetLocation(None, copies, installed=False, editable=False), "")
    assert not hidden.ok and f"found only {copies[0]}, which hides it" in hidden.message
    assert not missing.ok and "found none. Run `pip install" in missing.message


def located(*path: Path) -> dict:
    """What a fresh interpreter finds with ``path`` at the front of its path."""
    code = (
        "import json; from nnunet_3dct.data.installation import locate_nnunet as locate; found = locate();"
        "print(json.dumps([str(found.package), [str(copy) for copy in found.copies]]))"
    )
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [*path, PROJECT]))}
    run = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True)
    return dict(zip(("package", "copies"), json.loads(run.stdout), strict=True))


def test_package_behind_a_stray_folder_is_located(tmp_path: Path) -> None:
    """An editable nnU-Net on the path: the folder without __init__.py comes first but does not count."""
    stray = put_trainers(tmp_path / "site" / "nnunetv2")
    package = tmp_path / "source" / "nnunetv2"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    found = located(tmp_path / "site", tmp_path / "source")
    assert found["package"] == str(package)
    assert str(stray) in found["copies"]


def test_editable_install_is_read_from_its_record(monkeypatch: pytest.MonkeyPatch) -> None:
    record = {"url": "file:///source", "dir_info": {"editable": True}}

    class Distribution:
        def read_text(self, name: str) -> str | None:
            return json.dumps(record) if name == "direct_url.json" else None

    monkeypatch.setattr(importlib.metadata, "distribution", lambda name: Distribution())
    assert install._is_editable("nnunetv2")
    record["dir_info"] = {}
    assert not install._is_editable("nnunetv2")


@pytest.mark.parametrize(
    ("module", "ok", "words"),
    [
        ("nnunet_3dct.training.variants", True, "finds nnUNetTrainer_CLSHeadSum"),
        ("someone.elses", False, "found another in someone.elses"),
    ],
)
def test_search_must_find_our_trainer(monkeypatch: pytest.MonkeyPatch, module: str, ok: bool, words: str) -> None:
    trainer = type("nnUNetTrainer_CLSHeadSum", (), {"__module__": module})
    fake_module(
        monkeypatch,
        "nnunetv2.utilities.find_objects",
        recursive_find_trainer_class_by_name=lambda name: trainer,
    )
    finding = check_trainer_search()
    assert finding.ok is ok and words in finding.message


def test_module_that_breaks_the_search_is_quoted(monkeypatch: pytest.MonkeyPatch) -> None:
    def search(name: str) -> None:
        raise ImportError("no module named mine")

    fake_module(monkeypatch, "nnunetv2.utilities.find_objects", recursive_find_trainer_class_by_name=search)
    finding = check_trainer_search()
    assert not finding.ok and "ImportError: no module named mine" in finding.message


@pytest.mark.parametrize("name", [name for name in vars(trainers) if name.startswith("nnUNetTrainer_")])
def test_nnunet_finds_the_trainers_in_the_folder_for_ext_trainers(name: str) -> None:
    from nnunetv2.utilities.find_class_by_name import recursive_find_python_class

    folder = str(EXT_TRAINERS)
    found = recursive_find_python_class(folder, name, None, base_folder=folder, cleanup_imports_from_base_folder=True)
    assert found is not None and found.__module__.startswith("nnunet_3dct.")
    assert "nnunet_3dct_trainers" not in sys.modules


def test_folder_for_ext_trainers_holds_one_module() -> None:
    assert [path.name for path in EXT_TRAINERS.glob("*.py")] == ["nnunet_3dct_trainers.py"]


def test_folders_are_warnings_only(tmp_path: Path) -> None:
    environ = {"nnUNet_raw": str(tmp_path), "nnUNet_results": str(tmp_path / "none")}
    raw, preprocessed, results = check_folders(environ)
    assert (raw.ok, raw.warning) == (True, False)
    assert preprocessed.ok and preprocessed.warning and "export nnUNet_preprocessed=" in preprocessed.message
    assert results.ok and results.warning and "does not exist" in results.message


def test_cpu_prediction_says_what_runs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    finding = check_cpu_prediction()
    assert finding.ok and not finding.warning and finding.message.startswith("openvino 20")
    monkeypatch.setitem(sys.modules, "openvino", None)
    finding = check_cpu_prediction()
    assert finding.ok and finding.warning and "pip install openvino" in finding.message


def test_device_is_named() -> None:
    finding = check_device()
    assert finding.ok and finding.message.startswith(("cuda", "mps", "cpu"))
