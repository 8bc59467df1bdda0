"""``--explain``: where the evidence lies, on the image's own grid, beside a prediction that stays what it was."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import SimpleITK
import torch
from nnunetv2.imageio.nibabel_reader_writer import NibabelIO, NibabelIOWithReorient
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO, SimpleITKIOWithReorient
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from torch import Tensor

from nnunet_3dct.data.integrity import geometry_differences, image_geometry
from nnunet_3dct.errors import NNUNet3DCTError
from nnunet_3dct.inference import Predictor, export
from nnunet_3dct.inference.aggregation import CaseClass, average_folds
from nnunet_3dct.inference.explanation import (
    ENDINGS,
    WindowExplainer,
    evidence_image,
    evidence_on_image_grid,
    explain_case,
    note_empty_map,
)
from nnunet_3dct.inference.predictor import build_unet
from nnunet_3dct.inference.preprocessing import preprocess
from nnunet_3dct.inference.sliding_window import Windows
from nnunet_3dct.networks.heads import ClassificationHead, FeatureSpec, UNetFeatures, build_head, head_names
from nnunet_3dct.networks.multitask_unet import feature_spec
from tests.inference.predicting import reports, run
from tests.inference.test_backends import network
from tests.inference.test_predict import CASES, add_fold
from tests.inference.test_predict_failures import copied, fails, files_of
from tests.inference.test_preprocessing import plans as planned
from tests.inference.test_sliding_window import PATCH, image, windows
from tests.utils import truncate, write_volume

CPU = torch.device("cpu")
ODD = (0.0, -1.0, 0.0, 0.8, 0.0, -0.6, 0.6, 0.0, 0.8)  # axes turned, mirrored and oblique


def read(path: Path) -> np.ndarray:
    return SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path)))


def maps(folder: Path, ending: str = ".nii.gz") -> dict[str, np.ndarray]:
    return {case: read(folder / "evidence" / f"{case}{ending}") for case in CASES}


# ---------------------------------------------------------------------- what is computed


class Intensity(ClassificationHead):
    """The second class has the mean intensity of the window, and 5 as its bias."""

    name = "intensity"

    def forward(self, features: UNetFeatures) -> Tensor:
        mean = features.encoder[0].flatten(1).mean(1)
        return torch.stack((0 * mean, mean + 5), 1)


class SeesTheImage(torch.nn.Module):
    """A network whose only features are the image."""

    def __init__(self, head: ClassificationHead | None = None) -> None:
        super().__init__()
        self.cls_head = head or Intensity(FeatureSpec((1,), (), 3), 2)
        self.looked = 0

    def segment_with_features(self, x: Tensor) -> tuple[Tensor, UNetFeatures]:
        self.looked += 1
        return x, UNetFeatures([x], [], x)


def case_class(*weights: float, pred: int = 1) -> CaseClass:
    return CaseClass((0.0, 1.0) if pred else (1.0, 0.0), len(weights), 1, 1, True, (weights,))


def explained(data: Tensor, found: CaseClass, cut: Windows, *networks: Any) -> Tensor:
    explainers = [WindowExplainer(n, CPU) for n in networks or [SeesTheImage()]]
    return explain_case(explainers, cut, data, found)


@pytest.mark.parametrize(("patch", "shape"), [(PATCH, (12, 20, 30)), (PATCH, (5, 9, 40)), ((8, 16), (3, 20, 30))])
def test_windows_join_without_seams(patch: tuple[int, ...], shape: tuple[int, ...]) -> None:
    data, cut = image(*shape), windows(patch=patch)
    count = len(cut._layout([max(n, p) for n, p in zip(shape[::-1], patch[::-1], strict=False)][::-1]))
    if len(patch) == 2:
        count = len(cut._layout(shape))
    found = explained(data, case_class(*[1 / count] * count), cut)
    voxels = int(np.prod(patch))
    torch.testing.assert_close(found, data[0].clamp_min(0) / voxels / count, rtol=1e-3, atol=1e-9)


def test_window_counts_by_its_weight_in_the_class_and_those_without_are_not_looked_at() -> None:
    data, seen = image(8, 8, 24).abs(), SeesTheImage()
    found = explained(data, case_class(0.75, 0.25), windows(), seen)  # 0 to 16 and 8 to 24
    shares = found / data[0] * int(np.prod(PATCH))
    torch.testing.assert_close(shares[..., :8], torch.full((8, 8, 8), 0.75))
    torch.testing.assert_close(shares[..., 16:], torch.full((8, 8, 8), 0.25))
    torch.testing.assert_close(shares[..., 12], torch.full((8, 8), 0.5))  # halfway between the middles
    assert seen.looked == 2
    found = explained(data, case_class(1.0, 0.0), windows(), seen)
    assert seen.looked == 3 and not bool(found[..., 16:].any())


def test_evidence_of_one_window_adds_up_to_the_margin_without_bias() -> None:
    data = image(*PATCH).abs()
    found = explained(data, case_class(1.0), windows())
    assert float(found.sum()) == pytest.approx(float(data.mean()), rel=1e-5)


def test_only_what_speaks_for_the_class_is_shown() -> None:
    data = image(*PATCH)
    for_it, against = (explained(data, case_class(1.0, pred=label), windows()) for label in (1, 0))
    assert bool(((for_it > 0) == (data[0] > 0)).all()) and bool(((against > 0) == (data[0] < 0)).all())


def test_folds_are_averaged() -> None:
    data, cut = image(12, 20, 30), windows()
    networks = [network("simple"), network("simple")]
    with torch.no_grad():
        networks[1].cls_head.classifier.weight.mul_(-3)
    count = len(cut._layout(data.shape[1:]))
    one = case_class(*[1 / count] * count)
    both = average_folds([one, one])
    assert both.window_weights == one.window_weights * 2
    first = explained(data, one, cut, networks[0])
    found = explained(data, both, cut, *networks)
    opposite = explained(data, case_class(*[1 / count] * count, pred=1), cut, networks[1])
    assert bool((found <= (first + opposite) / 2 + 1e-9).all()) and bool((found < first).any())
    with torch.no_grad():
        networks[1].cls_head.classifier.weight.div_(-3)
    torch.testing.assert_close(explained(data, both, cut, *networks), first)


@pytest.mark.parametrize("data", [-torch.ones(1, *PATCH), torch.zeros(1, *PATCH)], ids=["against", "nothing"])
def test_black_map_is_noted_in_the_report(data: Tensor) -> None:
    report: dict[str, object] = {}
    assert note_empty_map(report, explained(data, case_class(1.0), windows()))
    assert "no place speaks for the predicted class" in str(report["evidence"])
    assert not note_empty_map(report := {}, explained(torch.ones(1, *PATCH), case_class(1.0), windows()))
    assert not note_empty_map(report, None) and report == {}


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


def test_evidence_that_is_no_number_is_refused() -> None:
    data = image(*PATCH)
    data[0, 1, 1, 1] = float("nan")
    with pytest.raises(NNUNet3DCTError, match="finite"):
        explained(data, case_class(1.0), windows())


# ---------------------------------------------------------------------- on the grid of the image


@pytest.mark.parametrize("configuration", ["2d", "3d_fullres"])
@pytest.mark.parametrize("transpose", [[0, 1, 2], [2, 0, 1]])
def test_bright_spot_is_found_back_where_it_is_in_the_image(configuration: str, transpose: list[int]) -> None:
    back = [transpose.index(axis) for axis in range(3)]
    plans = PlansManager({**planned().plans, "transpose_forward": transpose, "transpose_backward": back})
    volume = np.zeros((1, 20, 30, 40), np.float32)
    volume[0, 4:18, 5:25, 3:33] = 100  # the rest is cropped away
    volume[0, 12:15, 8:11, 24:27] = 180
    properties: dict[str, Any] = {"spacing": [2.0, 1.0, 1.0]}
    data = preprocess(volume, properties, plans, plans.get_configuration(configuration), {}, CPU)
    found = evidence_on_image_grid((data[0] - data[0].median()).clamp_min(0), properties, plans)
    assert found.shape == volume.shape[1:] and found.dtype == np.float32
    assert found.min() == 0 and found.max() == 1
    centre = np.average(np.argwhere(found > 0.5), axis=0)
    np.testing.assert_allclose(centre, (13, 9, 25), atol=0.6)
    outside = np.ones(found.shape, bool)
    outside[4:18, 5:25, 3:33] = False
    assert not found[outside].any()


@pytest.mark.parametrize(
    ("reader", "ending"),
    [
        (reader, ending)
        for reader in (SimpleITKIO, SimpleITKIOWithReorient, NibabelIO, NibabelIOWithReorient)
        for ending in ENDINGS
        if ending in reader.supported_file_endings
    ],
)
def test_map_lies_on_the_grid_of_the_file_whatever_the_reader_does_to_its_axes(
    reader: type, ending: str, tmp_path: Path
) -> None:
    volume = np.random.default_rng(0).random((5, 6, 7)).astype(np.float32)
    file = write_volume(tmp_path / f"image{ending}", volume, (1.5, 0.7, 2.0), (-20, 30, 4), ODD)
    seen, properties = reader().read_images([str(file)])
    plans = SimpleNamespace(image_reader_writer_class=reader)
    found = evidence_image(seen[0], properties, plans, ending)
    original = SimpleITK.ReadImage(str(file))
    assert geometry_differences(image_geometry(found), image_geometry(original)) == []
    assert found.GetPixelID() == SimpleITK.sitkFloat32
    np.testing.assert_allclose(SimpleITK.GetArrayFromImage(found), volume, atol=1e-5)


def test_flat_image_has_a_flat_map(tmp_path: Path) -> None:
    volume = np.random.default_rng(0).random((6, 7)).astype(np.float32)
    file = write_volume(tmp_path / "image.nii.gz", volume, (1.5, 0.7), (-20, 30))
    seen, properties = SimpleITKIO().read_images([str(file)])
    found = evidence_image(seen[0], properties, SimpleNamespace(image_reader_writer_class=SimpleITKIO), ".nii.gz")
    assert found.GetSize() == (7, 6) and found.GetSpacing() == pytest.approx((1.5, 0.7))
    np.testing.assert_allclose(SimpleITK.GetArrayFromImage(found), volume, atol=1e-5)


# ---------------------------------------------------------------------- the command and the Python interface


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
    sound = export.write_evidence

    def full_disk(evidence: Any, properties: Any, plans: Any, path: Path, ending: str) -> None:
        sound(evidence, properties, plans, path, ending)
        if "new_001" in path.name:
            truncate(path, 0.5)

    monkeypatch.setattr(export, "write_evidence", full_disk)
    message = fails(capsys, images, tmp_path / "out", "--disable_tta", "--explain")
    assert "new_001" in message and "truncated" in message
    assert files_of("new_001", tmp_path / "out") == []
    assert len(list((tmp_path / "out" / "evidence").iterdir())) == 2


def test_case_that_fails_leaves_no_older_map(
    model: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = copied(images, tmp_path / "in")
    run(folder, tmp_path / "out", "--disable_tta", "--explain")
    truncate(folder / "new_001_0000.nii.gz", 0.6)
    fails(capsys, folder, tmp_path / "out", "--disable_tta", "--explain")
    assert files_of("new_001", tmp_path / "out") == []


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
from nnunet_3dct.networks.heads import ClassificationHead, register
from nnunet_3dct.training.multitask_trainer import MultiTaskTrainer


@register
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
