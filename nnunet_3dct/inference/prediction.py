"""What prediction from Python gives for a case."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import SimpleITK

from nnunet_3dct.errors import ImageError
from nnunet_3dct.formats.class_files import ClassFile
from nnunet_3dct.formats.class_reasons import Reason
from nnunet_3dct.formats.geometry import Geometry


@dataclass(frozen=True)
class Prediction:
    """Both answers for one case.

    Attributes:
        segmentation: labels ``(Z, Y, X)`` on the grid of the input.
        probs: class probabilities, sum 1; calibrated if the model is.
        pred: class with the highest probability.
        class_name: its name, if the model knows names.
        class_file: what ``nnUNet3DCT_predict`` writes into ``<case>_classification.json``.
        seconds: spent in ``preprocess``, ``network`` and ``export``.
        geometry: grid of the input; None for an array.
        evidence: where it speaks for the class, ``(Z, Y, X)``, 0 to 1, with ``explain=True``.
        review: whether the highest probability is below the threshold ``abstain`` or the case is unlike the training
            cases; None without a threshold.

    Examples:
        >>> from nnunet_3dct import Predictor
        >>> found = Predictor(model, device="cpu", tta="none")(image)
        >>> found.class_file["target_voxels"] >= 0, sorted(found.seconds)
        (True, ['export', 'network', 'preprocess'])
    """

    segmentation: np.ndarray
    probs: tuple[float, ...]
    pred: int
    class_name: str | None
    class_file: ClassFile
    seconds: dict[str, float]
    geometry: Geometry | None = None
    evidence: np.ndarray | None = None
    review: bool | None = None

    @property
    def without_basis(self) -> str | None:
        """Why the class rests on nothing, such as an image without content; None if it does not."""
        return self.class_file.get("without_basis")

    @property
    def unusual(self) -> tuple[str, ...]:
        """In which way the case is unlike the training cases; empty where nothing is unusual."""
        return tuple(self.class_file.get("unusual", ()))

    @property
    def reasons(self) -> tuple[Reason, ...]:
        """Which features spoke for and against the class, the weightiest first; empty for heads that do not tell."""
        return tuple(self.class_file.get("reasons", ()))

    def image(self) -> SimpleITK.Image:
        """The segmentation with the geometry of the input image.

        Raises:
            ImageError: the input was an array, which has no origin and direction, or its axes are sheared.
        """
        if self.geometry is None:
            raise ImageError("Prediction.image: expected a file or a SimpleITK image as input, found an array.")
        axes = len(self.geometry.size)
        direction = np.reshape(self.geometry.direction, (axes, axes))
        if not np.allclose(direction.T @ direction, np.eye(axes), atol=1e-3):
            raise ImageError(
                "Prediction.image: expected axes at right angles, which SimpleITK needs, found sheared ones. Use "
                "Prediction.segmentation, or predict_folder, which writes with the model's own reader."
            )
        image = SimpleITK.GetImageFromArray(self.segmentation[0] if axes == 2 else self.segmentation)
        image.SetSpacing(self.geometry.spacing)
        image.SetOrigin(self.geometry.origin)
        image.SetDirection(self.geometry.direction)
        return image
