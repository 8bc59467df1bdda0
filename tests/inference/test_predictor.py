"""The Python interface: the same answer as the command's."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
import torch

from nnunet_3dct.errors import CheckpointError, ImageError, SettingsError
from nnunet_3dct.formats import case_images, image_files
from nnunet_3dct.inference import Predictor
from nnunet_3dct.inference import case as case_path
from nnunet_3dct.runtime import choose_device
from tests import toy
from tests.inference.predicting import reports, run
from tests.utils import write_sheared_volume, write_volume


@pytest.fixture
def predictor(model: Path) -> Predictor:
    return Predictor(model, device="cpu", backend="torch")


def test_file_image_and_array_give_what_the_command_gives(predictor: Predictor, images: Path, tmp_path: Path) -> None:
    run(images, tmp_path)
    for case, report in reports(tmp_path).items():
        file = images / f"{case}_0000.nii.gz"
        expected = SimpleITK.ReadImage(str(tmp_path / f"{case}.nii.gz"))
        image = SimpleITK.ReadImage(str(file))
        array = SimpleITK.GetArrayFromImage(image)
        for given in (file, [str(file)], image):
            found = predictor(given)
            np.testing.assert_array_equal(found.segmentation, SimpleITK.GetArrayFromImage(expected))
            assert found.probs == pytest.approx(report["probs"])
            assert (found.pred, found.class_name) == (report["pred"], report["class_names"][report["pred"]])
            assert found.class_file["target_voxels"] == report["target_voxels"]
            assert found.class_file["produced_by"] == report["produced_by"]
            assert set(found.seconds) == {"preprocess", "network", "export"}
            labels = found.image()
            assert (labels.GetSpacing(), labels.GetOrigin()) == (expected.GetSpacing(), expected.GetOrigin())
        for given in (array, array[None]):
            found = predictor(given, spacing=image.GetSpacing()[::-1])
            np.testing.assert_array_equal(found.segmentation, SimpleITK.GetArrayFromImage(expected))
            with pytest.raises(ImageError, match="expected a file or a SimpleITK image"):
                found.image()


def test_image_that_does_not_fit_is_refused(predictor: Predictor, images: Path) -> None:
    array = np.zeros((4, 5, 6), np.float32)
    with pytest.raises(ImageError, match=r"expected spacing \(Z, Y, X\) in mm"):
        predictor(array)
    for spacing in ((1, 1), (1, 0, 1), (1, np.nan, 1)):
        with pytest.raises(ImageError, match="expected spacing"):
            predictor(array, spacing=spacing)
    with pytest.raises(ImageError, match=r"1 channels, found shape \(2, 4, 5, 6\)"):
        predictor(np.zeros((2, 4, 5, 6)), spacing=(1, 1, 1))
    with pytest.raises(ImageError, match="spacing only beside an array"):
        predictor(images / "new_000_0000.nii.gz", spacing=(1, 1, 1))
    array[1, 2, 3] = np.nan
    with pytest.raises(ImageError, match="image in memory"):
        predictor(array, spacing=(1, 1, 1))
    with pytest.raises(ImageError, match="expected an image file"):
        predictor(images / "nothing.nii.gz")
    assert predictor(np.ones((4, 5, 6)), spacing=(1, 1, 1)).segmentation.shape == (4, 5, 6)


def test_model_that_is_not_there_is_refused(tmp_path: Path, model: Path) -> None:
    with pytest.raises(CheckpointError, match=r"expected a fold with checkpoint_final\.pth"):
        Predictor(tmp_path)


def test_device_that_is_not_there_is_refused_before_the_model_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for name in ("cuda", "cuda:0"):
        with pytest.raises(SettingsError, match=f"device {name}: expected a device of this machine, found only .*cpu"):
            choose_device(name)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device("cuda:1") == torch.device("cuda", 1) and choose_device("auto") == torch.device("cuda", 0)
    with pytest.raises(SettingsError, match="cuda:0 to cuda:1"):
        choose_device("cuda:2")


@pytest.mark.parametrize("fault", ["zeros", "air", "no target"])
def test_class_without_basis_is_called_that(
    fault: str, predictor: Predictor, monkeypatch: pytest.MonkeyPatch, images: Path
) -> None:
    volume = {"zeros": np.zeros((16, 24, 24)), "air": np.full((16, 24, 24), -1000.0)}.get(fault)
    if volume is None:
        volume = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(images / "new_000_0000.nii.gz")))
        sound = predictor(volume, spacing=(1, 1, 1))
        assert sound.without_basis is None and "without_basis" not in sound.class_file
        monkeypatch.setattr(case_path, "segment", lambda model, answer: np.zeros(volume.shape, np.uint8))
    found = predictor(volume, spacing=(1, 1, 1))
    words = "no voxel of the target" if fault == "no target" else "the same value in every voxel"
    assert words in str(found.without_basis) and found.class_file["without_basis"] == found.without_basis


def test_command_names_cases_without_basis(
    model: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(images, tmp_path / "in")
    write_volume(tmp_path / "in" / "new_001_0000.nii.gz", np.zeros((16, 24, 24), np.int16))
    run(tmp_path / "in", tmp_path / "out", "--disable_tta")
    assert "Class without basis: new_001" in capsys.readouterr().out
    assert "same value" in reports(tmp_path / "out")["new_001"]["without_basis"]
    assert list(json.loads((tmp_path / "out" / "prediction_manifest.json").read_text())["without_basis"]) == ["new_001"]


def test_implausible_spacing_is_named_before_anything_is_allocated(predictor: Predictor, tmp_path: Path) -> None:
    file = write_volume(tmp_path / "x_0000.nii.gz", np.eye(24, dtype=np.int16)[None].repeat(16, 0), (2000, 800, 800))
    with pytest.raises(ImageError, match=r"voxel sizes from .* mm, found"):
        predictor(file)
    with pytest.raises(ImageError, match=r"voxel sizes from .* mm, found"):
        predictor(np.eye(24)[None].repeat(16, 0), spacing=(2000, 800, 800))
    with pytest.raises(ImageError, match=r"would be resampled to .* GiB a channel"):
        predictor(np.random.default_rng(0).random((500, 50, 50)), spacing=(50, 50, 50))


def test_reader_of_the_plans_reads_what_itk_refuses(model: Path, tmp_path: Path) -> None:
    plans = json.loads((model / "plans.json").read_text())
    (tmp_path / "in").mkdir()
    file = write_sheared_volume(tmp_path / "in" / "a_0000.nii.gz", toy.toy_volume(3)[0])
    with pytest.raises(ImageError, match="sheared"):
        Predictor(model, device="cpu", backend="torch", tta="none")(file)
    (model / "plans.json").write_text(json.dumps({**plans, "image_reader_writer": "NibabelIO"}))
    found = Predictor(model, device="cpu", backend="torch", tta="none")(file)
    with pytest.raises(ImageError, match="sheared"):
        found.image()
    run(tmp_path / "in", tmp_path / "out", "--disable_tta")
    labels = nib.load(tmp_path / "out" / "a.nii.gz")
    np.testing.assert_allclose(labels.affine, nib.load(file).affine, atol=1e-6)
    np.testing.assert_array_equal(np.asarray(labels.dataobj).transpose(), found.segmentation)


@pytest.mark.parametrize("kind", [np.int16, np.float32])
def test_compressed_file_is_decompressed_once(
    kind: type, predictor: Predictor, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(images / "new_000_0000.nii.gz"))).astype(kind)
    file = write_volume(tmp_path / "x_0000.nii.gz", volume)
    whole: list[str] = []
    by_itk, by_python = SimpleITK.ReadImage, image_files.check_stream
    packed = lambda path: Path(path).read_bytes()[:2] == b"\x1f\x8b"  # noqa: E731
    monkeypatch.setattr(
        SimpleITK, "ReadImage", lambda path, *more: (packed(path) and whole.append("itk"), by_itk(path, *more))[1]
    )
    monkeypatch.setattr(case_images, "check_stream", lambda *a: (whole.append("python"), by_python(*a))[1])
    monkeypatch.setattr(nib, "load", lambda *a: pytest.fail("read by nibabel"))
    predictor(file)
    assert whole == ["python"]


def test_the_example_of_the_docs_runs(model: Path, images: Path, tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "prediction.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    names = {
        "model_folder": str(model),
        "image_file": str(images / "new_000_0000.nii.gz"),
        "segmentation_file": str(tmp_path / "labels.nii.gz"),
    }
    exec(example, names)
    labels = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(names["segmentation_file"]))
    np.testing.assert_array_equal(labels, names["again"].segmentation)  # type: ignore[attr-defined]


@pytest.mark.parametrize("ending", [".nrrd", ".mha"])
def test_other_file_formats_come_out_as_they_went_in(
    ending: str, predictor: Predictor, model: Path, images: Path, tmp_path: Path
) -> None:
    for file in images.glob("*.nii.gz"):
        image = SimpleITK.ReadImage(str(file))
        (tmp_path / "in").mkdir(exist_ok=True)
        SimpleITK.WriteImage(image, str(tmp_path / "in" / file.name.replace(".nii.gz", ending)))
    dataset = json.loads((model / "dataset.json").read_text())
    (model / "dataset.json").write_text(json.dumps({**dataset, "file_ending": ending}))
    run(tmp_path / "in", tmp_path / "out")
    for file in images.glob("*.nii.gz"):
        labels = SimpleITK.ReadImage(str(tmp_path / "out" / file.name.replace("_0000.nii.gz", ending)))
        expected = predictor(file).image()
        assert np.array_equal(SimpleITK.GetArrayFromImage(labels), SimpleITK.GetArrayFromImage(expected))
        assert labels.GetSpacing() == expected.GetSpacing() and labels.GetOrigin() == expected.GetOrigin()


def test_channels_on_different_grids_are_refused(predictor: Predictor, images: Path) -> None:
    first = SimpleITK.ReadImage(str(images / "new_000_0000.nii.gz"))
    second = SimpleITK.Image(first)
    second.SetSpacing([2 * step for step in first.GetSpacing()])
    with pytest.raises(ImageError, match=r"channels on one grid, found channel 1 against channel 0: .*spacing"):
        predictor([first, second])


@pytest.mark.parametrize("reader", ["NibabelIOWithReorient", "SimpleITKIOWithReorient"])
def test_reader_that_turns_images_gives_the_grid_of_the_file(
    reader: str, model: Path, images: Path, tmp_path: Path
) -> None:
    plans = json.loads((model / "plans.json").read_text())
    (model / "plans.json").write_text(json.dumps({**plans, "image_reader_writer": reader}))
    image = SimpleITK.ReadImage(str(images / "new_000_0000.nii.gz"))
    image = SimpleITK.PermuteAxes(image, (2, 0, 1))[::-1]
    (tmp_path / "in").mkdir()
    file = tmp_path / "in" / "turned_0000.nii.gz"
    SimpleITK.WriteImage(image, str(file))
    run(tmp_path / "in", tmp_path / "out")
    expected = SimpleITK.ReadImage(str(tmp_path / "out" / "turned.nii.gz"))
    found = Predictor(model, device="cpu", backend="torch")(file)
    labels = SimpleITK.GetArrayFromImage(expected)
    assert labels.shape == SimpleITK.GetArrayFromImage(image).shape
    np.testing.assert_array_equal(found.segmentation, labels)
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(found.image()), labels)
    np.testing.assert_allclose(found.image().GetDirection(), image.GetDirection(), atol=1e-6)
    np.testing.assert_allclose(found.image().GetOrigin(), image.GetOrigin(), atol=1e-4)
