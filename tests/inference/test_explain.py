"""``--explain`` of the command and of the Python interface, beside a prediction that stays what it was."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK
import torch
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_3dct.formats.image_files import geometry_differences, image_geometry
from nnunet_3dct.inference import Predictor
from nnunet_3dct.inference import case_writer as export
from nnunet_3dct.networks.build import build_unet
from nnunet_3dct.networks.heads import ClassificationHead, FeatureSpec, build_head, head_names
from nnunet_3dct.networks.multitask_unet import feature_spec
from tests.inference.predicting import reports, run
from tests.inference.test_predict import CASES, add_fold
from tests.inference.test_predict_failures import bytes_of, copied, fails
from tests.utils import truncate, write_volume

ODD = (0.0, -1.0, 0.0, 0.8, 0.0, -0.6, 0.6, 0.0, 0.8)  # axes turned, mirrored and oblique


def read(path: Path) -> np.ndarray:
    return SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path)))


def maps(folder: Path, ending: str = ".nii.gz") -> dict[str, np.ndarray]:
    return {case: read(folder / "evidence" / f"{case}{ending}") for case in CASES}


def test_case_without_evidence_keeps_its_segmentation_and_class(
    model: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ClassificationHead, "evidence", lambda head, features, label: [-features.logits[:, 0].abs()])
    run(images, tmp_path, "--explain")
    captured = capsys.readouterr()
    for case, report in reports(tmp_path).items():
        assert (tmp_path / f"{case}.nii.gz").is_file() and "biases" in report["evidence"]
        assert not SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(tmp_path / "evidence" / f"{case}.nii.gz")).any()
        assert f"{case}: no place speaks" in captured.out + captured.err


def with_head(model: Path, name: str) -> None:
    """Another head, with random weights, in the model's checkpoint."""
    path = model / "fold_0" / "checkpoint_final.pth"
    checkpoint = torch.load(path, weights_only=True)
    torch.manual_seed(0)
    options = {"memory_attention": {"width": 32, "memory": 5, "depth": 1, "attention_heads": 4}}.get(name, {})
    head = build_head(name, FeatureSpec((4, 8, 16), (8, 4), 3), 3, **options)
    checkpoint["cls_head_config"].update(name=name, options=head.options)
    checkpoint["cls_head_state"] = head.state_dict()
    torch.save(checkpoint, path)


@pytest.mark.parametrize("name", head_names())
def test_every_head_is_explained_and_predicts_what_it_did(name: str, model: Path, images: Path, tmp_path: Path) -> None:
    with_head(model, name)
    run(images, tmp_path / "plain", "--tta", "pair")
    run(images, tmp_path / "out", "--tta", "pair", "--explain")
    for path in (tmp_path / "plain").iterdir():
        if path.name != "prediction_manifest.json":  # it tells the arguments and seconds
            assert path.read_bytes() == (tmp_path / "out" / path.name).read_bytes(), path.name
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        *(p.name for p in (tmp_path / "plain").iterdir()),
        "evidence",
    }
    assert sorted(p.name for p in (tmp_path / "out" / "evidence").iterdir()) == [f"{case}.nii.gz" for case in CASES]
    for found in maps(tmp_path / "out").values():
        assert found.dtype == np.float32 and found.min() == 0 and found.max() == 1 and 0 < found.mean() < 0.9


def test_slices_of_a_2d_network_make_up_one_map(model: Path, images: Path, tmp_path: Path) -> None:
    plans, dataset = (json.loads((model / f"{name}.json").read_text()) for name in ("plans", "dataset"))
    manager = PlansManager(plans)
    torch.manual_seed(0)
    unet = build_unet(manager, manager.get_configuration("2d"), dataset)
    head = build_head("lesion", feature_spec(unet), 3, target_channels=[1, 2])
    path = model / "fold_0" / "checkpoint_final.pth"
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["init_args"]["configuration"] = "2d"
    checkpoint["cls_head_config"].update(name="lesion", options=head.options)
    checkpoint.update(network_weights=unet.state_dict(), cls_head_state=head.state_dict())
    torch.save(checkpoint, path)
    model.rename(model.with_name(model.name.replace("3d_fullres", "2d")))
    run(images, tmp_path, "-c", "2d", "--disable_tta", "--explain")
    for case, found in maps(tmp_path).items():
        assert found.shape == read(images / f"{case}_0000.nii.gz").shape and found.max() == 1
        assert (found.max((1, 2)) > 0).sum() > 1


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd", ".mha"])
def test_map_has_the_geometry_of_the_input(ending: str, model: Path, images: Path, tmp_path: Path) -> None:
    dataset = json.loads((model / "dataset.json").read_text())
    (model / "dataset.json").write_text(json.dumps({**dataset, "file_ending": ending}))
    for case in CASES:
        volume = read(images / f"{case}_0000.nii.gz")[:, 1:]
        write_volume(tmp_path / "in" / f"{case}_0000{ending}", volume, (1.1, 0.9, 2), (5, -6, 7), ODD)
    run(tmp_path / "in", tmp_path / "out", "--disable_tta", "--explain")
    for case in CASES:
        files = (tmp_path / "out" / "evidence" / f"{case}{ending}", tmp_path / "in" / f"{case}_0000{ending}")
        found, expected = (image_geometry(SimpleITK.ReadImage(str(file))) for file in files)
        assert geometry_differences(found, expected) == [] and found.floating


def test_runtime_does_not_change_the_map(model: Path, images: Path, tmp_path: Path) -> None:
    for name, flags in (("torch", ()), ("openvino", ("--precision", "f32"))):
        run(images, tmp_path / name, "--disable_tta", "--explain", "--backend", name, *flags)
    for found, expected in zip(maps(tmp_path / "torch").values(), maps(tmp_path / "openvino").values(), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-3)


@pytest.mark.parametrize("reader", ["SimpleITKIO", "NibabelIOWithReorient", "SimpleITKIOWithReorient"])
def test_python_gives_what_the_command_writes(reader: str, model: Path, images: Path, tmp_path: Path) -> None:
    plans = json.loads((model / "plans.json").read_text())
    (model / "plans.json").write_text(json.dumps({**plans, "image_reader_writer": reader}))
    (tmp_path / "in").mkdir()
    turned = SimpleITK.PermuteAxes(SimpleITK.ReadImage(str(images / "new_000_0000.nii.gz")), (2, 0, 1))[::-1]
    SimpleITK.WriteImage(turned, str(tmp_path / "in" / "new_000_0000.nii.gz"))
    add_fold(model, 1)
    run(tmp_path / "in", tmp_path / "out", "--explain", "--disable_tta")
    predictor = Predictor(model, device="cpu", backend="torch", tta="none", explain=True)
    found = predictor(tmp_path / "in" / "new_000_0000.nii.gz")
    assert found.evidence is not None and found.evidence.shape == found.segmentation.shape
    np.testing.assert_allclose(found.evidence, read(tmp_path / "out" / "evidence" / "new_000.nii.gz"), atol=1e-4)
    if reader == "SimpleITKIO":
        array = SimpleITK.GetArrayFromImage(turned)
        again = predictor(array, spacing=turned.GetSpacing()[::-1])
        np.testing.assert_allclose(again.evidence, found.evidence, atol=1e-4)
        assert Predictor(model, device="cpu", backend="torch", tta="none")(turned).evidence is None


# ---------------------------------------------------------------------- whole files or none


@pytest.mark.parametrize("fraction", [0.5, None], ids=["cut off", "missing"])
def test_continuing_redoes_a_case_whose_map_is_not_whole(
    fraction: float | None, model: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("--disable_tta", "--explain")
    run(images, tmp_path, *flags)
    whole, broken = maps(tmp_path)["new_001"], tmp_path / "evidence" / "new_001.nii.gz"
    if fraction is None:
        broken.unlink()
    else:
        truncate(broken, fraction)
    capsys.readouterr()
    run(images, tmp_path, "--disable_tta", "--continue_prediction")
    assert "0 to predict" in capsys.readouterr().out
    run(images, tmp_path, *flags, "--continue_prediction")
    assert "1 to predict" in capsys.readouterr().out
    np.testing.assert_array_equal(maps(tmp_path)["new_001"], whole)


def test_map_is_there_before_the_segmentation_and_an_older_one_is_gone(
    model: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(images, tmp_path, "--disable_tta", "--explain")
    sound, order = Path.replace, []

    def spied(self: Path, target: Path) -> None:
        if "new_001" in target.name and target.suffix == ".gz":
            order.append((target.parent.name, target.exists()))
        sound(self, target)

    monkeypatch.setattr(Path, "replace", spied)
    run(images, tmp_path, "--disable_tta", "--explain")
    assert order == [("evidence", False), (tmp_path.name, False)]
    run(images, tmp_path, "--disable_tta")  # a map of another run says nothing of this segmentation
    assert list((tmp_path / "evidence").iterdir()) == []


def test_map_that_was_not_written_whole_fails_its_case_alone(
    model: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(images, tmp_path / "out", "--disable_tta", "--explain")
    before = bytes_of("new_001", tmp_path / "out")
    sound = export.write_evidence

    def full_disk(evidence: Any, properties: Any, plans: Any, path: Path, ending: str) -> None:
        sound(evidence, properties, plans, path, ending)
        if "new_001" in str(path):
            truncate(path, 0.5)

    monkeypatch.setattr(export, "write_evidence", full_disk)
    message = fails(capsys, images, tmp_path / "out", "--disable_tta", "--explain")
    assert "new_001" in message and "truncated" in message
    assert bytes_of("new_001", tmp_path / "out") == before


def test_case_that_fails_keeps_its_older_map(
    model: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = copied(images, tmp_path / "in")
    run(folder, tmp_path / "out", "--disable_tta", "--explain")
    before = bytes_of("new_001", tmp_path / "out")
    truncate(folder / "new_001_0000.nii.gz", 0.6)
    fails(capsys, folder, tmp_path / "out", "--disable_tta", "--explain")
    assert len(before) == 4 and bytes_of("new_001", tmp_path / "out") == before


def test_format_that_cannot_hold_a_map_is_refused_before_any_case(
    model: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = json.loads((model / "dataset.json").read_text())
    (model / "dataset.json").write_text(json.dumps({**dataset, "file_ending": ".tif"}))
    message = fails(capsys, images, tmp_path / "out", "--explain")
    assert "--explain: expected images in a format" in message and "found .tif" in message
    assert not (tmp_path / "out").exists()


HEAD_OUTSIDE_PYTORCH = """
import torch
from nnunet_3dct.networks.heads import ClassificationHead, register_head
from nnunet_3dct.training.trainer import MultiTaskTrainer


@register_head
class ArrayHead(ClassificationHead):
    name = "array"

    def forward(self, features):
        return torch.from_numpy(features.encoder[-1].detach().numpy()[:, :3].mean((2, 3, 4)))


class nnUNetTrainer_ArrayHead(MultiTaskTrainer):
    head_name = "array"
"""


def test_head_without_gradient_is_refused_before_any_case(
    model: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "trainers").mkdir()
    (tmp_path / "trainers" / "array_head.py").write_text(HEAD_OUTSIDE_PYTORCH)
    monkeypatch.setenv("nnUNet_extTrainer", str(tmp_path / "trainers"))
    path = model / "fold_0" / "checkpoint_final.pth"
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["cls_head_config"].update(name="array", options={})
    checkpoint.update(cls_head_state={}, trainer_name="nnUNetTrainer_ArrayHead")
    torch.save(checkpoint, path)
    run(images, tmp_path / "out", "--disable_tta")
    shutil.rmtree(tmp_path / "out")
    message = fails(capsys, images, tmp_path / "out", "--disable_tta", "--explain")
    assert "head 'array': expected class logits that have a gradient" in message and "leave out --explain" in message
    assert not (tmp_path / "out").exists()
