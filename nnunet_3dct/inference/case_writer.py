"""The prediction folder: files of a case appear whole or not at all."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nnunet_3dct.errors import ImageError
from nnunet_3dct.formats.atomic import write_json
from nnunet_3dct.formats.class_files import CLASS_SUFFIX, ClassFile
from nnunet_3dct.formats.image_files import check_image_file
from nnunet_3dct.inference.explanation import FOLDER, write_evidence
from nnunet_3dct.inference.preprocessing import segmentation_from_logits


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
        report: ClassFile,
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
        from nnunet_3dct.upstream import export_prediction_from_logits

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
