"""What a prediction can be asked for, checked once for Python and the command line; importing this loads no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nnunet_3dct.errors import SettingsError
from nnunet_3dct.formats.dicom_files import REPORT, SEGMENTATION, STRUCTURES
from nnunet_3dct.runtime import BACKENDS, MIRRORING, PRECISIONS, check_choice, check_device_name, check_number


@dataclass(frozen=True)
class PredictionOptions:
    """How a model predicts.

    Attributes:
        device: see :func:`~nnunet_3dct.runtime.choose_device`.
        tta: mirroring, see :func:`~nnunet_3dct.inference.windows.mirrored_passes`.
        step_size: share of the patch between windows, above 0 to 1.
        skip_empty: leave out windows that show nothing but air.
        backend, precision: see :func:`~nnunet_3dct.inference.backends.make_backend`.
        explain: also say where the evidence for the predicted class lies.
        abstain: cases whose highest class probability is below are marked for review; None marks none.
        sum_on_device: whether logits are summed on a GPU; else on the CPU.

    Raises:
        SettingsError: a name is not known or a number out of range.
    """

    device: str = "auto"
    tta: str = "full"
    step_size: float = 0.5
    skip_empty: bool = False
    backend: str = "auto"
    precision: str = "auto"
    explain: bool = False
    abstain: float | None = None
    sum_on_device: bool = True

    def __post_init__(self) -> None:
        check_device_name(self.device)
        check_choice("tta", self.tta, MIRRORING)
        check_choice("backend", self.backend, BACKENDS)
        check_choice("precision", self.precision, PRECISIONS)
        check_number("step_size", self.step_size, "a number above 0 and at most 1", lambda x: 0 < x <= 1)
        if self.abstain is not None:
            check_number("abstain", self.abstain, "a probability between 0 and 1", lambda x: 0 < x < 1)
        if self.backend == "openvino" and self.device.partition(":")[0] in ("cuda", "mps"):
            raise SettingsError(
                f"backend openvino: expected the device cpu, found {self.device}. Use the backend torch."
            )


@dataclass(frozen=True)
class FolderOptions:
    """How a folder is worked through.

    Attributes:
        save_probabilities: also write stock's ``<case>.npz`` and ``<case>.pkl``.
        continue_prediction: keep cases whose files are whole and were made by the same model with the same settings.
        num_preprocessing_threads, num_export_threads: on either side of the network; at least 1.
        part_id, num_parts: which share of the cases this is, from 0, and how many calls share the folder.
        verbose: say of each case how it went, and of each that fails where the error came from.
        clinical: table of the cases' covariates, for a model that was trained with some.
        dicom_seg, dicom_sr, rtstruct: also write DICOM results that refer to the series, for images that are DICOM:
            a segmentation, a report, a structure set.

    Raises:
        SettingsError: a number is out of range, or there is no such table.
    """

    save_probabilities: bool = False
    continue_prediction: bool = False
    num_preprocessing_threads: int = 3
    num_export_threads: int = 3
    part_id: int = 0
    num_parts: int = 1
    verbose: bool = False
    clinical: Path | None = None
    dicom_seg: bool = False
    dicom_sr: bool = False
    rtstruct: bool = False

    @property
    def dicom_results(self) -> tuple[str, ...]:
        """Kinds of DICOM results that are wanted, as :mod:`nnunet_3dct.formats.dicom_files` names them."""
        wanted = {SEGMENTATION: self.dicom_seg, REPORT: self.dicom_sr, STRUCTURES: self.rtstruct}
        return tuple(kind for kind, asked in wanted.items() if asked)

    def __post_init__(self) -> None:
        for name in ("num_preprocessing_threads", "num_export_threads", "num_parts"):
            check_number(name, getattr(self, name), "a whole number of at least 1", lambda x: x >= 1 and x == int(x))
        check_number(
            "part_id",
            self.part_id,
            f"a whole number from 0 to {self.num_parts - 1}",
            lambda x: 0 <= x < self.num_parts and x == int(x),
        )
        if self.clinical is not None and not self.clinical.is_file():
            raise SettingsError(f"clinical: expected a table of covariates, found no file {self.clinical}.")
