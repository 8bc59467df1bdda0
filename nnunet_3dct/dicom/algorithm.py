"""Who says it: the model and its version, as DICOM results name them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from nnunet_3dct import __version__

MAKER = "nnUNet_3DCT"
RESEARCH_USE = "Research use"
STATEMENT = (
    "Research use only. Computed by an algorithm and verified by nobody; not for diagnosis, treatment or any other "
    "decision about the patient."
)


@dataclass(frozen=True)
class Algorithm:
    """A model.

    Attributes:
        name: of the model, such as its dataset and trainer.
        weights: fingerprint of its weights.
        parameters: how it predicted, name -> value.
    """

    name: str = MAKER
    weights: str = "unknown"
    parameters: Mapping[str, str] = field(default_factory=dict)

    @property
    def version(self) -> str:
        """Of the program and the weights."""
        return f"{MAKER} {__version__}, weights {self.weights}"
