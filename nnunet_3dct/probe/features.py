"""What a trained network shows of each case: pooled features, its own class, and the target that it outlines."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from nnunet_3dct.errors import CheckpointError, SettingsError
from nnunet_3dct.formats.atomic import read_json
from nnunet_3dct.formats.checkpoint import check_unet_fits, read_checkpoint
from nnunet_3dct.inference.recording import PooledFeatures, recording_predictor
from nnunet_3dct.networks.build import build_saved_head, build_unet
from nnunet_3dct.networks.target import TargetLabels
from nnunet_3dct.probe.target_features import target_features
from nnunet_3dct.upstream import PlansManager, infer_dataset_class


@dataclass(frozen=True)
class CaseFeatures:
    """Of one whole volume; windows are averaged with the target voxels that the network finds as weights.

    Attributes:
        pooled: see :func:`~nnunet_3dct.networks.pooling.pool_features`.
        head_probs: class probabilities of the network's own head, None where it has none.
        target: first-order and shape features of the predicted target by name.
    """

    pooled: np.ndarray
    head_probs: np.ndarray | None
    target: dict[str, float]


class FeatureExtractor:
    """A trained network of one fold, for probing; ``trained_on`` holds its training cases where it noted them.

    Args:
        model_folder: nnU-Net's ``<trainer>__<plans>__<configuration>``, of a multi-task trainer or of any other.
        fold: fold folder to read.
        checkpoint_name: file inside it.
        target_labels: voxel labels that carry the class, as in ``NNUNETV2_MT_TARGET_LABELS``; by default the
            checkpoint's own, else all foreground.
        device: where the network runs.

    Raises:
        CheckpointError: a file is missing, unreadable or of another network.
        SettingsError: a cascade, or labels that do not exist.
    """

    def __init__(
        self,
        model_folder: Path,
        fold: int,
        checkpoint_name: str,
        target_labels: tuple[int | str, ...] | None,
        device: torch.device,
    ) -> None:
        plans, dataset_json = (
            read_json(model_folder / name, "Model folder: its", CheckpointError)
            for name in ("plans.json", "dataset.json")
        )
        self.plans = PlansManager(plans)
        checkpoint = read_checkpoint(model_folder / f"fold_{fold}" / checkpoint_name)
        self.trained_on = set(checkpoint.labels.get("training", {}))
        self.configuration = self.plans.get_configuration(checkpoint.configuration)
        if self.configuration.previous_stage_name is not None:
            raise SettingsError(f"{model_folder}: expected a network that stands alone, found the stage of a cascade.")

        unet = build_unet(self.plans, self.configuration, dataset_json)
        check_unet_fits(unet.state_dict(), checkpoint.unet_weights, checkpoint.source)
        unet.load_state_dict(checkpoint.unet_weights)
        head, saved_target = None, None
        if checkpoint.has_head:
            config = checkpoint.head_config
            head = build_saved_head(config, unet, checkpoint.trainer_name)
            check_unet_fits(head.state_dict(), checkpoint.head_weights, checkpoint.head_source)
            head.load_state_dict(checkpoint.head_weights)
            saved_target = config["target_labels"]
        self.target = TargetLabels(self.plans.get_label_manager(dataset_json), target_labels or saved_target)
        self._recorder = PooledFeatures(unet, self.target, head)
        self._predictor = recording_predictor(self._recorder, self.plans, self.configuration, dataset_json, device)
        self._recorder.to(device).eval()

    def extract(self, preprocessed: Path, cases: Iterable[str]) -> Iterator[tuple[str, CaseFeatures]]:
        """Features of preprocessed cases.

        Args:
            preprocessed: dataset folder in ``nnUNet_preprocessed``.
            cases: identifiers.
        """
        folder = str(preprocessed / self.configuration.data_identifier)
        dataset = infer_dataset_class(folder)(folder)
        for case in cases:
            image = np.asarray(dataset.load_case(case)[0][:])
            pooled, probs, mask = self.pool(torch.from_numpy(image))
            spacing = [*self.configuration.spacing]
            if len(spacing) == 2:  # 2D networks: slices of unknown distance
                spacing = [1.0, *spacing]
            yield case, CaseFeatures(pooled, probs, target_features(image, mask, spacing))

    def pool(self, image: Tensor) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
        """What the network shows of one preprocessed image.

        Args:
            image: ``(C, Z, Y, X)``.

        Returns:
            Pooled features, class probabilities of the head (None where there is none) and the target that the
            network outlines, bool ``(Z, Y, X)``.
        """
        logits = self._predictor.predict_sliding_window_return_logits(image)
        pooled, probs = self._recorder.result()
        return pooled, probs, self.target.mask(logits[None])[0].cpu().numpy()
