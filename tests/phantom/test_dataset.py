"""The phantom: repeatable files, a valid nnU-Net dataset, plausible HU, and the promised difficulty."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from scipy import ndimage
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

from nnunet_3dct.cli.phantom import main
from nnunet_3dct.errors import OutputError, SettingsError
from nnunet_3dct.phantom.case import PhantomCase, make_case
from nnunet_3dct.phantom.dataset import draw_subtypes, write_phantom

FIRST_ORDER = ("mean", "std", "skewness", "volume", "p10", "p25", "p50", "p75", "p90")


def hashes(folder: Path) -> dict[str, str]:
    """Digest of every file below ``folder``."""
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


def first_order_features(case: PhantomCase) -> list[float]:
    """Statistics of the true lesion that ignore where its voxels lie."""
    lesion = case.label == 2
    hu = case.image[lesion].astype(float)
    mean, std = hu.mean(), hu.std()
    volume = lesion.sum() * np.prod(case.spacing_mm)
    return [mean, std, ((hu - mean) ** 3).mean() / std**3, volume, *np.percentile(hu, (10, 25, 50, 75, 90))]


def local_features(case: PhantomCase) -> list[float]:
    """Wall minus core, coarse and fine texture of the core, and steepness of the margin."""
    box = ndimage.find_objects((case.label == 2).astype(int))[0]
    box = tuple(slice(max(side.start - 5, 0), side.stop + 5) for side in box)
    hu, lesion, spacing = case.image[box].astype(np.float32), case.label[box] == 2, case.spacing_mm
    depth = ndimage.distance_transform_edt(lesion, sampling=spacing)
    core, shell = depth >= np.median(depth[lesion]), (depth > 0.5) & (depth < 2.2)
    smooth = ndimage.gaussian_filter(hu, [1.5 / s for s in spacing])
    slope = ndimage.gaussian_gradient_magnitude(hu, [0.8 / s for s in spacing])
    margin = (depth > 0) & (depth < 1.2)
    return [
        hu[shell].mean() - hu[core].mean(),
        smooth[core].std(),
        (hu - smooth)[core].std(),
        slope[margin].mean(),
    ]


def cohort(difficulty: str, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """First-order features, local features and subtypes of ``n`` cases."""
    subtypes = np.array(draw_subtypes(n, np.random.default_rng(1)))
    cases = (make_case(np.random.default_rng([7, 0, i]), int(c), difficulty) for i, c in enumerate(subtypes))
    rows = [(first_order_features(case), local_features(case)) for case in cases]
    return np.array([r[0] for r in rows]), np.array([r[1] for r in rows]), subtypes


def accuracy(features: np.ndarray, subtypes: np.ndarray, *, thresholds: bool) -> float:
    """Cross-validated balanced accuracy of a few thresholds or of logistic regression."""
    if thresholds:
        model = DecisionTreeClassifier(max_leaf_nodes=4, min_samples_leaf=3, class_weight="balanced", random_state=0)
    else:
        model = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced"))
    folds = StratifiedKFold(4, shuffle=True, random_state=0)
    return balanced_accuracy_score(subtypes, cross_val_predict(model, features, subtypes, cv=folds))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A written dataset of four training and two validation cases."""
    folder = tmp_path_factory.mktemp("raw") / "Dataset001_3DCT"
    write_phantom(folder, cases=4, val=2, seed=3, num_processes=1)
    return folder


def test_same_seed_gives_same_bytes_whatever_the_number_of_processes(dataset: Path, tmp_path: Path) -> None:
    write_phantom(tmp_path / "again", cases=4, val=2, seed=3, num_processes=2)
    assert hashes(tmp_path / "again") == hashes(dataset)


def test_training_files_depend_on_the_seed_and_not_on_the_number_of_validation_cases(
    dataset: Path, tmp_path: Path
) -> None:
    write_phantom(tmp_path / "no_val", cases=4, val=0, seed=3)
    assert not (tmp_path / "no_val" / "imagesVal").exists()
    volumes = {name: h for name, h in hashes(tmp_path / "no_val").items() if name.endswith(".nii.gz")}
    assert volumes == {name: h for name, h in hashes(dataset).items() if "Tr/" in name}
    write_phantom(tmp_path / "other", cases=3, val=0, seed=4)
    assert not set(hashes(tmp_path / "other").values()) & set(volumes.values())


def test_dataset_follows_the_layout_of_nnunet(dataset: Path) -> None:
    from nnunetv2.experiment_planning.verify_dataset_integrity import verify_dataset_integrity

    verify_dataset_integrity(str(dataset), num_processes=1)
    description = json.loads((dataset / "dataset.json").read_text())
    assert description["labels"] == {"background": 0, "pancreas": 1, "lesion": 2}
    assert description["channel_names"] == {"0": "CT"}
    assert description["numTraining"] == len(list((dataset / "imagesTr").iterdir())) == 4
    for split in ("Tr", "Val"):
        images = {f.name.removesuffix("_0000.nii.gz") for f in (dataset / f"images{split}").iterdir()}
        assert images == {f.name.removesuffix(".nii.gz") for f in (dataset / f"labels{split}").iterdir()}
    classes = json.loads((dataset / "classification.json").read_text())
    assert sorted(classes) == ["case_0000", "case_0001", "case_0002", "case_0003", "val_0000", "val_0001"]
    assert {classes[f"case_{i:04d}"] for i in range(4)} == {0, 1, 2}


def test_image_and_label_share_one_geometry_with_spacing_and_origin(dataset: Path) -> None:
    spacings = set()
    for label_file in sorted((dataset / "labelsTr").iterdir()):
        label = sitk.ReadImage(str(label_file))
        image = sitk.ReadImage(str(dataset / "imagesTr" / label_file.name.replace(".nii.gz", "_0000.nii.gz")))
        assert (image.GetPixelID(), label.GetPixelID()) == (sitk.sitkInt16, sitk.sitkUInt8)
        assert image.GetSize() == label.GetSize()
        assert image.GetSpacing() == label.GetSpacing()
        assert image.GetOrigin() == label.GetOrigin() != (0.0, 0.0, 0.0)
        assert image.GetDirection() == (1, 0, 0, 0, 1, 0, 0, 0, 1)
        x, y, z = image.GetSpacing()
        assert x == y
        assert 0.65 < x < 0.82
        assert 1.6 < z < 2.5
        spacings.add((x, z))
        voxels = sitk.GetArrayFromImage(label)
        assert set(np.unique(voxels)) == {0, 1, 2}
        assert (voxels == 2).sum() >= 100
    assert len(spacings) == 4


@pytest.mark.parametrize("n", [3, 4, 5, 7, 36, 60, 252])
def test_class_proportions_follow_62_106_84(n: int) -> None:
    counts = np.bincount(draw_subtypes(n, np.random.default_rng(0)), minlength=3)
    assert counts.sum() == n
    assert (counts > 0).all()
    assert np.abs(counts - n * np.array([62, 106, 84]) / 252).max() < 1


def test_subtype_changes_neither_body_nor_place_nor_size_of_the_lesion() -> None:
    cases = [make_case(np.random.default_rng(11), c, "easy") for c in range(3)]
    lesions = [case.label == 2 for case in cases]
    assert len({int(lesion.sum()) for lesion in lesions}) == 1
    centres = [np.array(ndimage.center_of_mass(m)) * c.spacing_mm for m, c in zip(lesions, cases, strict=True)]
    assert np.abs(centres - centres[0]).max() < 1.0, "mm"
    outside = ~ndimage.binary_dilation(np.logical_or.reduce(lesions), iterations=8)
    for case in cases[1:]:
        np.testing.assert_array_equal(case.image[outside], cases[0].image[outside])
        np.testing.assert_array_equal(case.label[outside], cases[0].label[outside])


def test_attenuation_and_sizes_are_those_of_portal_venous_ct() -> None:
    for i in range(6):
        case = make_case(np.random.default_rng([2, i]), i % 3, "hard")
        extent = np.array(case.image.shape) * case.spacing_mm
        assert (np.abs(extent - (118, 86, 132)) < (14, 8, 10)).all(), "mm"
        pancreas, lesion = case.label == 1, case.label == 2
        inner = ndimage.binary_erosion(pancreas, iterations=2)
        assert 80 < np.median(case.image[inner]) < 118
        hu = case.image[~(pancreas | lesion)]
        fat = hu[(hu > -160) & (hu < -50)]
        assert -112 < np.median(fat) < -88
        assert fat.size > 0.15 * case.image.size
        assert ((hu > 140) & (hu < 200)).sum() > 0.01 * case.image.size, "vessels and kidney"
        voxel_ml = np.prod(case.spacing_mm) / 1000
        assert 15 < (pancreas | lesion).sum() * voxel_ml < 120
        assert 1.5 < lesion.sum() * voxel_ml < 27, "radius 8 to 18 mm"
        pieces, _ = ndimage.label(lesion)
        assert np.bincount(pieces.ravel())[1:].max() > 0.97 * lesion.sum()
        touching = ndimage.binary_dilation(lesion) & pancreas
        assert touching.any()


def test_noise_is_correlated_in_plane() -> None:
    case = make_case(np.random.default_rng(5), 0, "easy")
    calm = ndimage.binary_erosion(case.label == 1, iterations=2)
    hu = case.image.astype(float)
    pairs = calm[:, :, :-1] & calm[:, :, 1:]
    left, right = hu[:, :, :-1][pairs], hu[:, :, 1:][pairs]
    assert np.corrcoef(left, right)[0, 1] > 0.3


def test_easy_subtypes_are_told_apart_by_a_few_thresholds_on_attenuation() -> None:
    first, _, subtypes = cohort("easy", 36)
    columns = [FIRST_ORDER.index("mean"), FIRST_ORDER.index("p25")]
    assert accuracy(first[:, columns], subtypes, thresholds=True) > 0.85


def test_hard_subtypes_need_more_than_one_intensity_statistic() -> None:
    first, local, subtypes = cohort("hard", 60)
    single = {name: accuracy(first[:, [i]], subtypes, thresholds=True) for i, name in enumerate(FIRST_ORDER)}
    combined = accuracy(local, subtypes, thresholds=False)
    assert max(single.values()) < 0.65, single
    assert combined > 0.8
    assert combined > max(single.values()) + 0.15


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--cases", "2"], "cases: expected 3 or more, found 2"),
        (["--val", "-1"], "val: expected 0 or more, found -1"),
        (["--seed", "-5"], "seed: expected 0 or more, found -5"),
        (["-np", "0"], "num_processes: expected 1 or more, found 0"),
    ],
)
def test_unusable_numbers_are_named(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["-o", str(tmp_path / "d"), *arguments])
    assert stop.value.code == 2
    assert f"error: {message}" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_unknown_subtype_and_difficulty_are_named() -> None:
    with pytest.raises(SettingsError, match="subtype: expected 0, 1 or 2, found 3"):
        make_case(np.random.default_rng(0), 3, "easy")
    with pytest.raises(SettingsError, match="difficulty: expected easy, hard; found 'mean'"):
        make_case(np.random.default_rng(0), 0, "mean")


def test_full_folder_is_left_alone_unless_it_holds_a_dataset_to_overwrite(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "Dataset001_3DCT"
    folder.mkdir()
    (folder / "thesis.txt").write_text("mine")
    for extra, message in (([], "overwrite"), (["--overwrite"], "no dataset.json")):
        with pytest.raises(SystemExit):
            main(["-o", str(folder), "--cases", "3", "--val", "0", *extra])
        assert message in capsys.readouterr().err
        assert [f.name for f in folder.iterdir()] == ["thesis.txt"]
    (folder / "dataset.json").write_text("{}")
    main(["-o", str(folder), "--cases", "3", "--val", "0", "-np", "1", "--overwrite"])
    assert not (folder / "thesis.txt").exists()
    assert len(list((folder / "imagesTr").iterdir())) == 3
    assert [f.name for f in tmp_path.iterdir()] == [folder.name]


def test_failure_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(*_: object, **__: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("nnunet_3dct.phantom.dataset.sitk.WriteImage", full_disk)
    with pytest.raises(OutputError, match="no space left"):
        write_phantom(tmp_path / "d", cases=3, val=0, num_processes=1)
    assert not list(tmp_path.iterdir())


FULL_DISK = """
import resource, sys
from nnunet_3dct import OutputError, write_phantom
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
try:
    write_phantom(sys.argv[1], cases=3, val=0)
except OutputError as error:
    print("refused:", error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="limits the size of files as POSIX systems can")
def test_volume_that_was_cut_off_by_the_system_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", FULL_DISK, tmp_path / "d"], capture_output=True, text=True, check=True)
    assert "refused: " in done.stdout and "case_0000_0000.nii.gz" in done.stdout
    assert not list(tmp_path.iterdir())


def test_progress_is_told_after_each_case(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    write_phantom(tmp_path / "d", cases=3, val=1, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(1, 4), (2, 4), (3, 4), (4, 4)]
