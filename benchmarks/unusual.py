"""How many cases are marked as unlike the training cases: held-out ones, and foreign or spoilt ones.

For each fold of a trained segmentation model a head is fitted to the training cases alone, the threshold too. The
validation cases should not be marked; the same cases inverted, blurred, with noise or replaced by noise, and cases of
other data sets should.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from tqdm import tqdm

from nnunet_3dct.data.splits import read_splits
from nnunet_3dct.formats.atomic import read_json
from nnunet_3dct.formats.checkpoint import read_checkpoint
from nnunet_3dct.formats.class_labels import UNKNOWN, read_dataset_labels
from nnunet_3dct.paths import PREPROCESSED, nnunet_folder
from nnunet_3dct.runtime import choose_device
from nnunet_3dct.training.case_features import CaseFeatures
from nnunet_3dct.training.fit_head import KnownCases, case_table, fitted_head
from nnunet_3dct.training.head_choice import candidates, choose
from nnunet_3dct.upstream import PlansManager, infer_dataset_class

Spoil = Callable[[np.ndarray], np.ndarray]
RNG = np.random.default_rng(0)
SPOILT: dict[str, Spoil] = {  # of the task
    "inverted": lambda x: x.max() + x.min() - x,
    "blurred (2.5 voxels)": lambda x: ndimage.gaussian_filter(x, (0, 2.5, 2.5, 2.5)),
    "noise of one standard deviation added": lambda x: x + RNG.normal(0, x.std(), x.shape).astype(np.float32),
    "noise alone": lambda x: RNG.normal(x.mean(), x.std(), x.shape).astype(np.float32),
}
BESIDES: dict[str, Spoil] = {  # whether what tells those tells others too
    "intensities mirrored about their mean": lambda x: 2 * x.mean() - x,
    "blurred (1.5 voxels)": lambda x: ndimage.gaussian_filter(x, (0, 1.5, 1.5, 1.5)),
    "blurred (2.5 voxels, first axis alone)": lambda x: ndimage.gaussian_filter(x, (0, 2.5, 0, 0)),
    "every third voxel, interpolated": lambda x: _coarser(x, 3),
    "noise of half a standard deviation added": lambda x: x + RNG.normal(0, x.std() / 2, x.shape).astype(np.float32),
    "all intensities 1.5 times": lambda x: x * np.float32(1.5),
    "half of the image set to its lowest value": lambda x: np.where(np.arange(x.shape[2])[:, None] < x.shape[2] // 2,
                                                                    x.min(), x),
    "first and last axis swapped": lambda x: np.ascontiguousarray(x.swapaxes(1, 3)),
}  # fmt: skip


def _coarser(image: np.ndarray, factor: int) -> np.ndarray:
    few = [max(2, round(size / factor)) for size in image.shape[1:]]
    for shape in (few, image.shape[1:]):
        image = ndimage.zoom(image, (1, *np.divide(shape, image.shape[1:])), order=1)
    return image


def _of_scanner(plans: dict[str, Any], configuration: str) -> dict[str, Spoil]:
    """What goes wrong in HU before a CT is normalised; nothing for other images."""
    if plans["configurations"][configuration]["normalization_schemes"] != ["CTNormalization"]:
        return {}
    of_data = plans["foreground_intensity_properties_per_channel"]["0"]
    mean, std = of_data["mean"], of_data["std"]
    limits = [(of_data[f"percentile_{p}"] - mean) / std for p in ("00_5", "99_5")]

    def window(x: np.ndarray, low: float, high: float) -> np.ndarray:
        return x.clip((low - mean) / std, (high - mean) / std).clip(*limits)

    return {
        "1024 HU too high": lambda x: (x + np.float32(1024 / std)).clip(*limits),
        "cut to a soft-tissue window": lambda x: window(x, -160, 240),
    }


def main() -> None:
    """Fit, mark, count."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="trained segmentation model")
    parser.add_argument("--others", type=Path, nargs="*", default=[], help="preprocessed folders of other data sets")
    parser.add_argument("--folds", type=int, nargs="+", default=[0])
    parser.add_argument("--most", type=int, default=20, help="foreign cases of a kind and fold. Default: %(default)s")
    parser.add_argument("--fewer", type=int, default=5, help="of kinds beside those of the task. Default: %(default)s")
    parser.add_argument("-o", type=Path, required=True, help="JSON file")
    args = parser.parse_args()
    marked: dict[str, list[bool]] = {}
    for fold in args.folds:
        for name, found in _of_fold(args.model, fold, args.others, args.most, args.fewer).items():
            marked.setdefault(name, []).extend(found)
        args.o.write_text(json.dumps(_counted(marked), indent=2) + "\n")
    print("| cases | marked as unusual |\n| --- | --- |")
    for name, row in _counted(marked).items():
        print(f"| {name} | {row['marked']} of {row['of']} ({row['marked'] / row['of']:.0%}) |")


def _counted(marked: dict[str, list[bool]]) -> dict[str, dict[str, int]]:
    return {name: {"marked": sum(found), "of": len(found)} for name, found in marked.items()}


def _of_fold(model: Path, fold: int, others: list[Path], most: int, fewer: int) -> dict[str, list[bool]]:
    dataset = model.resolve().parent.name
    labels, split = read_dataset_labels(dataset), read_splits(dataset)[fold]
    plans, dataset_json = (read_json(model / f"{name}.json", "Model", ValueError) for name in ("plans", "dataset"))
    checkpoint = read_checkpoint(model / f"fold_{fold}" / "checkpoint_final.pth")
    maker = CaseFeatures(checkpoint, plans, dataset_json, None, labels.num_classes, choose_device("auto"))
    preprocessed = nnunet_folder(PREPROCESSED) / dataset
    rows = dict(maker.of_cases(preprocessed, tqdm([*split["train"], *split["val"]], leave=False)))
    classes = {case: labels.by_case[case] for case in split["train"] if labels.by_case[case] != UNKNOWN}
    table = case_table(rows, KnownCases(classes, labels.groups), maker.head)
    choice = choose(table, maker.head.layout, labels.num_classes, repeats=1, offered=candidates(maker.head.layout)[:1])
    head = fitted_head(maker.head, choice, table, np.zeros((0, 0)))  # what is chosen has no say in what is unusual

    def marked(columns: list[np.ndarray]) -> list[bool]:
        return (head.strangeness(torch.from_numpy(np.stack(columns))) > 1).tolist()

    configuration = PlansManager(plans).get_configuration(checkpoint.configuration)
    spacing = tuple(configuration.spacing)
    folder = preprocessed / configuration.data_identifier
    data = infer_dataset_class(str(folder))(str(folder))
    images = [np.asarray(data.load_case(case)[0][:]) for case in split["val"][:most]]
    found = {"held out": marked([rows[case] for case in split["val"]])}
    besides = {**BESIDES, **_of_scanner(plans, checkpoint.configuration)}
    for name, spoil in {**SPOILT, **besides}.items():
        some = images[:fewer] if name in besides else images
        found[name] = marked(
            [maker.of_image(torch.from_numpy(spoil(image)), spacing) for image in tqdm(some, leave=False)]
        )
    for other in others:
        foreign = infer_dataset_class(str(other))(str(other))
        cases = [np.asarray(foreign.load_case(case)[0][:]) for case in list(foreign.identifiers)[:most]]
        found[other.parent.name] = marked(
            [maker.of_image(torch.from_numpy(x), spacing) for x in tqdm(cases, leave=False)]
        )
    return found


if __name__ == "__main__":
    main()
