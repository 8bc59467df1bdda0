"""What a multi-task training does with whole volumes of its fold: score the class, fit the head, classify cases."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nnunet_3dct.inference.preprocessing import network_spacing
from nnunet_3dct.inference.recording import recording_predictor
from nnunet_3dct.inference.windows import AboutCase, Windows
from nnunet_3dct.training import fit_head
from nnunet_3dct.training.class_data import known
from nnunet_3dct.training.class_score import STEP_SIZE, ClassScore, score_cases
from nnunet_3dct.training.volumes import VolumeRunner, WholeVolumes

if TYPE_CHECKING:
    from nnunet_3dct.training.trainer import MultiTaskTrainer


def volume_runner(trainer: MultiTaskTrainer) -> VolumeRunner:
    """Runs the network over whole volumes of the fold, in this process over its share of them."""

    def about(case: str, properties: dict[str, Any]) -> AboutCase:
        clinical = trainer.preflight.clinical
        spacing = network_spacing(properties, trainer.plans_manager, trainer.configuration_manager)
        return AboutCase(spacing, None if clinical is None else clinical.of(case))

    return VolumeRunner(
        network=trainer.multitask_network,
        compiled=trainer.network.module if trainer.is_ddp else trainer.network,
        target=trainer.target_labels,
        predictor_for=lambda recorder: recording_predictor(
            recorder, trainer.plans_manager, trainer.configuration_manager, trainer.dataset_json, trainer.device
        ),
        volumes_of=lambda cases: WholeVolumes(
            trainer.dataset_class(
                trainer.preprocessed_dataset_folder,
                cases[trainer.local_rank :: trainer.world_size],
                folder_with_segs_from_previous_stage=trainer.folder_with_segs_from_previous_stage,
            ),
            trainer.label_manager.foreground_labels if trainer.is_cascaded else None,
            about,
        ),
        windows=Windows(
            tuple(trainer.configuration_manager.patch_size),
            STEP_SIZE,
            [()],
            trainer.label_manager.num_segmentation_heads,
            trainer.target_labels,
        ),
        device=trainer.device,
        say=trainer.print_to_log_file,
    )


def score_validation_cases(trainer: MultiTaskTrainer) -> ClassScore:
    """Class score over the validation cases of known class; every process takes its share and gets the same score."""
    own = volume_runner(trainer).classify(known(trainer.fold_labels.validation))
    probs = {case: found.probs for share in trainer.gather(own) for case, found in share.items()}
    return score_cases(probs, trainer.class_labels.by_case)


def refit_head(trainer: MultiTaskTrainer) -> fit_head.Refit:
    """Fit the case head to the training cases of known class; the network is not changed."""
    training, runner = trainer.fold_labels.training, volume_runner(trainer)
    classes = {case: training[case] for case in known(training)}
    unseen = tuple(case for case in trainer.fold_labels.validation if case not in training)
    cases = sorted({*classes, *unseen})
    return fit_head.refit(
        trainer.multitask_network.cls_head,
        lambda: runner.columns(cases),
        fit_head.KnownCases(classes, trainer.class_labels.groups, unseen, trainer.preflight.clinical),
        trainer.preflight.weighting.volumes,
        trainer.gather,
    )
