from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from nnunet_3dct.data.checks.dataset import check_dataset
from nnunet_3dct.errors import EvaluationError, ImageError
from nnunet_3dct.formats.label_volumes import Pair, find_reader, load_label_scheme, match_files, read_pair
from tests.utils import edit_nifti_header, label_array, scale_labels, tilt, unpack, write_raw_dataset, write_volume


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    return write_raw_dataset(tmp_path / "raw")


def predictions_of(dataset: Path) -> Path:
    """A folder of predictions that equal the references and lie on the grid of the images."""
    folder = dataset.parent / "predictions"
    for label in (dataset / "labelsTr").iterdir():
        write_volume(folder / label.name, label_array())
    return folder


def compare(dataset: Path, predictions: Path, case: str) -> Pair:
    scheme = load_label_scheme(dataset / "dataset.json")
    reference = dataset / "labelsTr" / f"{case}.nii.gz"
    return read_pair(reference, predictions / reference.name, find_reader(scheme, reference), scheme)


class TestGrid:
    @pytest.mark.parametrize("offset", [0.0, 0.01, 0.05, 0.099])
    def test_that_check_passes_evaluation_passes(self, dataset: Path, offset: float) -> None:
        write_volume(dataset / "labelsTr" / "case_001.nii.gz", label_array(), origin=(offset, 0, 0))
        assert check_dataset(dataset).problems == []
        compare(dataset, predictions_of(dataset), "case_001")

    @pytest.mark.parametrize("offset", [0.11, 5.0])
    def test_that_check_refuses_evaluation_refuses(self, dataset: Path, offset: float) -> None:
        write_volume(dataset / "labelsTr" / "case_001.nii.gz", label_array(), origin=(offset, 0, 0))
        assert "origin" in check_dataset(dataset).problems[0]
        with pytest.raises(EvaluationError, match=r"case_001\.nii\.gz: label and prediction differ in origin"):
            compare(dataset, predictions_of(dataset), "case_001")


@pytest.mark.parametrize("source", ["dataset.json", "plans.json"])
def test_reader_named_in_dataset_json_or_plans_reads_sheared_labels(dataset: Path, source: str) -> None:
    predictions = predictions_of(dataset)
    for path in (dataset / "labelsTr" / "case_001.nii.gz", predictions / "case_001.nii.gz"):
        tilt(path)
    with pytest.raises(ImageError, match="sheared"):
        scheme = load_label_scheme(dataset / "dataset.json")
        files = [folder / "case_001.nii.gz" for folder in (dataset / "labelsTr", predictions)]
        read_pair(*files, find_reader(scheme, dataset / "labelsTr" / "case_000.nii.gz"), scheme)
    if source == "plans.json":
        (dataset / "plans.json").write_text(json.dumps({"image_reader_writer": "NibabelIO"}))
    else:
        content = json.loads((dataset / "dataset.json").read_text())
        (dataset / "dataset.json").write_text(json.dumps({**content, "overwrite_image_reader_writer": "NibabelIO"}))
    scheme = load_label_scheme(dataset / "dataset.json")
    reader = find_reader(scheme, dataset / "labelsTr" / "case_000.nii.gz")
    pair = read_pair(dataset / "labelsTr" / "case_001.nii.gz", predictions / "case_001.nii.gz", reader, scheme)
    assert (pair.reference.labels == pair.prediction.labels).all()


@pytest.mark.parametrize("folder", ["references", "predictions"])
def test_same_volume_in_two_formats_is_refused(dataset: Path, folder: str) -> None:
    folders = {"references": dataset / "labelsTr", "predictions": predictions_of(dataset)}
    write_volume(folders[folder] / "case_001.nii", label_array())
    with pytest.raises(EvaluationError, match=r"case_001\.nii and case_001\.nii\.gz"):
        match_files(*folders.values(), ".nii.gz", chill=True)


def test_hidden_files_are_no_volumes(dataset: Path) -> None:
    predictions = predictions_of(dataset)
    for folder in (dataset / "labelsTr", predictions):
        (folder / "._case_000.nii.gz").write_bytes(b"\x00\x05\x16\x07")
    names, missing = match_files(dataset / "labelsTr", predictions, ".nii.gz", chill=False)
    assert names == [f"case_00{n}.nii.gz" for n in range(4)] and missing == []


@pytest.mark.parametrize("name", ["case_009.mha", "case_009.nii", "case_009.NII.GZ"])
def test_volume_of_another_format_is_named_unless_chill(dataset: Path, name: str) -> None:
    folders = dataset / "labelsTr", predictions_of(dataset)
    (folders[1] / name).write_bytes(b"x")
    with pytest.raises(EvaluationError, match=f"{name}: expected the ending .nii.gz"):
        match_files(*folders, ".nii.gz", chill=False)
    assert len(match_files(*folders, ".nii.gz", chill=True)[0]) == 4


def test_scaled_labels_are_rounded_by_the_rule_of_the_check(dataset: Path) -> None:
    scale_labels(dataset / "labelsTr" / "case_001.nii.gz", 1 / 127.5, np.uint8)
    pair = compare(dataset, predictions_of(dataset), "case_001")
    assert np.unique(pair.reference.labels).tolist() == [0, 1, 2]
    assert [Path(path).name for path in pair.rounded] == ["case_001.nii.gz"]
    assert pair.reference.rounding and pair.reference.rounding.voxels == np.count_nonzero(label_array() == 1)


def test_plain_nifti_with_a_compressed_name_is_read(dataset: Path) -> None:
    unpack(dataset / "labelsTr" / "case_001.nii.gz")
    assert (compare(dataset, predictions_of(dataset), "case_001").reference.labels[0] == label_array()).all()


def test_voxel_size_in_metres_is_refused(dataset: Path) -> None:
    edit_nifti_header(dataset / "labelsTr" / "case_001.nii.gz", xyzt_units=1)
    with pytest.raises(ImageError, match=r"case_001\.nii\.gz.*lengths are in meter"):
        compare(dataset, predictions_of(dataset), "case_001")


def test_form_of_nnunet_v1_is_named(dataset: Path) -> None:
    content = json.loads((dataset / "dataset.json").read_text())
    (dataset / "dataset.json").write_text(json.dumps({**content, "labels": {"0": "background", "1": "organ"}}))
    with pytest.raises(EvaluationError, match=r"cannot be used as dataset\.json: labels: .*the form of nnU-Net v1"):
        load_label_scheme(dataset / "dataset.json")


def test_import_brings_in_no_torch() -> None:
    code = "import sys, nnunet_3dct.formats.label_volumes; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
