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
from nnunet_3dct.training.head_choice import choose
from nnunet_3dct.upstream import PlansManager, infer_dataset_class

RNG = np.random.default_rng(0)
SPOILT: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "inverted": lambda x: x.max() + x.min() - x,
    "blurred (2.5 voxels)": lambda x: ndimage.gaussian_filter(x, (0, 2.5, 2.5, 2.5)),
    "noise of one standard deviation added": lambda x: x + RNG.normal(0, x.std(), x.shape).astype(np.float32),
    "noise alone": lambda x: RNG.normal(x.mean(), x.std(), x.shape).astype(np.float32),
}


def main() -> None:
    """Fit, mark, count."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="trained segmentation model")
    parser.add_argument("--others", type=Path, nargs="*", default=[], help="preprocessed folders of other data sets")
    parser.add_argument("--folds", type=int, nargs="+", default=[0])
    parser.add_argument("--most", type=int, default=20, help="foreign cases of a kind and fold. Default: %(default)s")
    parser.add_argument("-o", type=Path, required=True, help="JSON file")
    args = parser.parse_args()
    marked: dict[str, list[bool]] = {}
    for fold in args.folds:
        for name, found in _of_fold(args.model, fold, args.others, args.most).items():
            marked.setdefault(name, []).extend(found)
    result = {name: {"marked": sum(found), "of": len(found)} for name, found in marked.items()}
    args.o.write_text(json.dumps(result, indent=2) + "\n")
    print("| cases | marked as unusual |\n| --- | --- |")
    for name, row in result.items():
        print(f"| {name} | {row['marked']} of {row['of']} ({row['marked'] / row['of']:.0%}) |")


def _of_fold(model: Path, fold: int, others: list[Path], most: int) -> dict[str, list[bool]]:
    dataset = model.resolve().parent.name
    labels, split = read_dataset_labels(dataset), read_splits(dataset)[fold]
    plans, dataset_json = (read_json(model / f"{name}.json", "Model", ValueError) for name in ("plans", "dataset"))
    checkpoint = read_checkpoint(model / f"fold_{fold}" / "checkpoint_final.pth")
    maker = CaseFeatures(checkpoint, plans, dataset_json, None, labels.num_classes, choose_device("auto"))
    preprocessed = nnunet_folder(PREPROCESSED) / dataset
    rows = dict(maker.of_cases(preprocessed, tqdm([*split["train"], *split["val"]], leave=False)))
    classes = {case: labels.by_case[case] for case in split["train"] if labels.by_case[case] != UNKNOWN}
    table = case_table(rows, KnownCases(classes, labels.groups), maker.head)
    head = fitted_head(
        maker.head, choose(table, maker.head.layout, labels.num_classes, repeats=1), table, np.zeros((0, 0))
    )

    def marked(columns: list[np.ndarray]) -> list[bool]:
        return (head.strangeness(torch.from_numpy(np.stack(columns))) > 1).tolist()

    configuration = PlansManager(plans).get_configuration(checkpoint.configuration)
    spacing = tuple(configuration.spacing)
    folder = preprocessed / configuration.data_identifier
    data = infer_dataset_class(str(folder))(str(folder))
    images = [np.asarray(data.load_case(case)[0][:]) for case in split["val"][:most]]
    found = {"held out": marked([rows[case] for case in split["val"]])}
    for name, spoil in SPOILT.items():
        found[name] = marked(
            [maker.of_image(torch.from_numpy(spoil(image)), spacing) for image in tqdm(images, leave=False)]
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
