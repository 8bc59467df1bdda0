"""The prediction folder: files of a case appear whole or not at all."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import re
import shutil
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nnunet_3dct.data.integrity import check_image_file
from nnunet_3dct.errors import ImageError, NNUNet3DCTError
from nnunet_3dct.files import write_json, write_text
from nnunet_3dct.inference.aggregation import CaseClass
from nnunet_3dct.inference.explanation import FOLDER, write_evidence
from nnunet_3dct.inference.preprocessing import segmentation_from_logits

CLASS_SUFFIX = "_classification.json"


def class_report(
    case_class: CaseClass,
    class_names: Sequence[str] | None,
    *,
    temperature: float | None = None,
    review_below: float | None = None,
    **produced_by: Any,
) -> dict[str, Any]:
    """Content of ``<case>_classification.json``.

    ``logits`` is the logarithm of the averaged probabilities, whatever the calibration:
    ``softmax(logits / temperature) == probs``.

    Args:
        case_class: what the network says.
        class_names: of the classes, if it knows them.
        temperature: of the calibration; None for none.
        review_below: ``review`` says whether the highest probability is below; None leaves it out.
        produced_by: noted as it is.

    Raises:
        NNUNet3DCTError: a probability is not finite.
    """
    if not np.isfinite(case_class.probs).all():
        raise NNUNet3DCTError(
            f"Class probabilities: expected finite numbers, found {list(case_class.probs)}. The network's "
            "weights or its forward pass are not finite; try another checkpoint or device."
        )
    probs = list(case_class.probs)
    if temperature is not None:
        probs = torch.tensor(case_class.logits, dtype=torch.float64).div(temperature).softmax(0).tolist()
    report: dict[str, Any] = {
        "logits": case_class.logits,
        "probs": probs,
        "pred": case_class.pred,
        "num_classes": len(probs),
    }
    if temperature is not None:
        report["temperature"] = temperature
    if review_below is not None:
        report["review"] = max(probs) < review_below
    if class_names:
        report["class_names"] = list(class_names)
    report["produced_by"] = {
        "windows": case_class.windows,
        "passes_per_window": case_class.passes_per_window,
        "folds_averaged": case_class.folds,
        "windows_weighted_by_target": case_class.saw_target,
        **produced_by,
    }
    return report


@contextlib.contextmanager
def partial_folder(output_folder: Path, case: str) -> Iterator[Path]:
    """A hidden folder inside ``output_folder`` that is gone afterwards, whatever happens."""
    folder = output_folder / f".{case}.{os.getpid()}.partial"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_leftovers(output_folder: Path, cases: Iterable[str]) -> None:
    """Delete partial folders that a killed run left for ``cases`` (other parts' cases are not touched)."""
    ours = set(cases)
    for folder in output_folder.glob(".*.partial"):
        found = re.fullmatch(r"\.(.+)\.\d+\.partial", folder.name)
        if found and found[1] in ours:
            shutil.rmtree(folder, ignore_errors=True)


class CaseWriter:
    """Writes all files of a case.

    Args:
        output_folder: for segmentations and probabilities (``-o``).
        class_folder: for ``<case>_classification.json`` (``-co``).
        plans_manager, configuration_manager, dataset_json: of the model.
        target_labels: voxel values counted as ``target_voxels``.
        save_probabilities: also write stock's ``<case>.npz`` and ``<case>.pkl``.
        explain: a case is whole only with its map of the evidence.
    """

    def __init__(
        self,
        output_folder: Path,
        class_folder: Path,
        plans_manager: Any,
        configuration_manager: Any,
        dataset_json: dict[str, Any],
        target_labels: Sequence[int],
        save_probabilities: bool,
        explain: bool = False,
    ) -> None:
        self.output_folder = output_folder
        self.class_folder = class_folder
        self.plans_manager = plans_manager
        self.configuration_manager = configuration_manager
        self.dataset_json = dataset_json
        self.label_manager = plans_manager.get_label_manager(dataset_json)
        self.target_labels = list(target_labels)
        self.save_probabilities = save_probabilities
        self.explain = explain
        self.ending = str(dataset_json["file_ending"])

    def write(
        self,
        case: str,
        logits: torch.Tensor,
        properties: dict[str, Any],
        report: dict[str, Any],
        evidence: torch.Tensor | None = None,
    ) -> None:
        """Export into a hidden folder, read back, then move.

        An older segmentation of the case goes first and the new one comes last, so that a kill in between
        leaves a case that :meth:`is_complete` calls incomplete.

        Raises:
            ImageError: what was written cannot be read back, as on a full disk.
        """
        with partial_folder(self.output_folder, case) as folder:
            written = folder / f"{case}{self.ending}"
            if self.save_probabilities:
                self._export_with_probabilities(folder / case, logits, properties)
            else:
                segmentation = segmentation_from_logits(
                    logits, properties, self.plans_manager, self.configuration_manager, self.label_manager
                )
                self.plans_manager.image_reader_writer_class().write_seg(segmentation, str(written), properties)
            check_image_file(written)
            segmentation, _ = self.plans_manager.image_reader_writer_class().read_seg(str(written))
            report["target_voxels"] = int(np.isin(segmentation, self.target_labels).sum())
            if evidence is not None:
                write_evidence(evidence, properties, self.plans_manager, folder / FOLDER / written.name, self.ending)
                check_image_file(folder / FOLDER / written.name)
            for old in (written.name, f"{FOLDER}/{written.name}"):  # a map of another run would not fit
                (self.output_folder / old).unlink(missing_ok=True)
            write_json(report, self.class_folder / f"{case}{CLASS_SUFFIX}")
            files = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
            for path in sorted(files, key=lambda path: path == Path(written.name)):
                (self.output_folder / path).parent.mkdir(exist_ok=True)
                (folder / path).replace(self.output_folder / path)

    def _export_with_probabilities(self, path: Path, logits: torch.Tensor, properties: dict[str, Any]) -> None:
        # imports the compiler and the training code: a second that only this option is worth
        from nnunetv2.inference.export_prediction import export_prediction_from_logits

        export_prediction_from_logits(
            logits.cpu(),
            properties,
            self.configuration_manager,
            self.plans_manager,
            self.dataset_json,
            str(path),
            save_probabilities=True,
            num_threads_torch=torch.get_num_threads(),
        )

    def remove(self, case: str) -> None:
        """Delete what an earlier run left of a case that failed now, so that it is not taken for this run's."""
        for suffix in (self.ending, ".npz", ".pkl"):
            (self.output_folder / f"{case}{suffix}").unlink(missing_ok=True)
        (self.output_folder / FOLDER / f"{case}{self.ending}").unlink(missing_ok=True)
        (self.class_folder / f"{case}{CLASS_SUFFIX}").unlink(missing_ok=True)

    def is_complete(self, case: str) -> bool:
        """Whether every file of the case exists and is whole."""
        try:
            check_image_file(self.output_folder / f"{case}{self.ending}")
            json.loads((self.class_folder / f"{case}{CLASS_SUFFIX}").read_text(encoding="utf-8"))["probs"]
            if self.explain:
                check_image_file(self.output_folder / FOLDER / f"{case}{self.ending}")
            if self.save_probabilities:
                with zipfile.ZipFile(self.output_folder / f"{case}.npz") as archive:
                    return archive.testzip() is None
        except (ImageError, OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile, zlib.error):
            return False
        return True


def write_class_tables(class_folder: Path, cases: Iterable[str], file_ending: str) -> None:
    """``subtype_results.csv`` (``Names,Subtype``) and ``subtype_probabilities.csv`` from the JSON files.

    Cases without a JSON file are left out, so that parts of a split run can each write the table; should another part
    finish a case meanwhile, the table is written again.
    """
    cases = sorted(cases)
    written: dict[str, Mapping[str, Any]] = {}
    while written != (reports := _reports(class_folder, cases)):
        first = next(iter(reports.values()))
        names = first.get("class_names") or [f"class_{k}" for k in range(first["num_classes"])]
        rows = {f"{case}{file_ending}": report for case, report in reports.items()}
        _write_csv(
            class_folder / "subtype_results.csv",
            ["Names", "Subtype"],
            [[name, report["pred"]] for name, report in rows.items()],
        )
        _write_csv(
            class_folder / "subtype_probabilities.csv",
            ["Names", *names],
            [[name, *(f"{p:.6f}" for p in report["probs"])] for name, report in rows.items()],
        )
        written = reports


def _reports(class_folder: Path, cases: Iterable[str]) -> dict[str, Mapping[str, Any]]:
    found = {}
    for case in cases:
        with contextlib.suppress(FileNotFoundError):  # another part may remove a case that failed
            found[case] = json.loads((class_folder / f"{case}{CLASS_SUFFIX}").read_text(encoding="utf-8"))
    return found


def _write_csv(path: Path, header: list[str], rows: list[list[Any]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    write_text(text.getvalue(), path)
