"""Every name of nnU-Net and of the libraries beneath it that this project uses.

None of them is a public interface with a promise of stability. They are listed here and imported nowhere else, and
``tests/test_upstream.py`` checks for each the behaviour that we rely on, so that an upgrade of nnU-Net is a change to
this table and, where something moved, a red test.

A name is imported when it is first asked for: most of these modules bring in torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

HOMES = {
    "bounding_box_to_slice": "acvl_utils.cropping_and_padding.bounding_boxes",
    "get_bbox_from_mask": "acvl_utils.cropping_and_padding.bounding_boxes",
    "pad_nd_image": "acvl_utils.cropping_and_padding.padding",
    "BasicTransform": "batchgeneratorsv2.transforms.base.basic_transform",
    "ImageOnlyTransform": "batchgeneratorsv2.transforms.base.basic_transform",
    "RandomTransform": "batchgeneratorsv2.transforms.utils.random",
    "default_num_processes": "nnunetv2.configuration",
    "split_4d_nifti": "nnunetv2.dataset_conversion.convert_MSD_dataset",
    "merge_files": "nnunetv2.ensembling.ensemble",
    "compute_metrics": "nnunetv2.evaluation.evaluate_predictions",
    "ExperimentPlanner": "nnunetv2.experiment_planning.experiment_planners.default_experiment_planner",
    "BaseReaderWriter": "nnunetv2.imageio.base_reader_writer",
    "determine_reader_writer_from_dataset_json": "nnunetv2.imageio.reader_writer_registry",
    "recursive_find_reader_writer_by_name": "nnunetv2.imageio.reader_writer_registry",
    "convert_predicted_logits_to_segmentation_with_correct_shape": "nnunetv2.inference.export_prediction",
    "export_prediction_from_logits": "nnunetv2.inference.export_prediction",
    "nnUNetPredictor": "nnunetv2.inference.predict_from_raw_data",
    "compute_gaussian": "nnunetv2.inference.sliding_window_prediction",
    "compute_steps_for_sliding_window": "nnunetv2.inference.sliding_window_prediction",
    "DefaultPreprocessor": "nnunetv2.preprocessing.preprocessors.default_preprocessor",
    "compute_new_shape": "nnunetv2.preprocessing.resampling.default_resampling",
    "determine_do_sep_z_and_axis": "nnunetv2.preprocessing.resampling.default_resampling",
    "resample_data_or_seg_to_shape": "nnunetv2.preprocessing.resampling.default_resampling",
    "infer_dataset_class": "nnunetv2.training.dataloading.nnunet_dataset",
    "LocalLogger": "nnunetv2.training.logging.nnunet_logger",
    "MetaLogger": "nnunetv2.training.logging.nnunet_logger",
    "nnUNetTrainer": "nnunetv2.training.nnUNetTrainer.nnUNetTrainer",
    "generate_crossval_split": "nnunetv2.utilities.crossval_split",
    "maybe_convert_to_dataset_name": "nnunetv2.utilities.dataset_name_id_conversion",
    "recursive_find_trainer_class_by_name": "nnunetv2.utilities.find_objects",
    "get_network_from_plans": "nnunetv2.utilities.get_network_from_plans",
    "LabelManager": "nnunetv2.utilities.label_handling.label_handling",
    "convert_labelmap_to_one_hot": "nnunetv2.utilities.label_handling.label_handling",
    "determine_num_input_channels": "nnunetv2.utilities.label_handling.label_handling",
    "ConfigurationManager": "nnunetv2.utilities.plans_handling.plans_handler",
    "PlansManager": "nnunetv2.utilities.plans_handling.plans_handler",
    "get_filenames_of_train_images_and_targets": "nnunetv2.utilities.utils",
}


def __getattr__(name: str) -> Any:
    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(HOMES[name]), name)
