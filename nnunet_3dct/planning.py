"""A planner for machines without a GPU."""

from __future__ import annotations

from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner


class SmallUNetPlanner(ExperimentPlanner):
    """nnU-Net's planner with a quarter of the compute: half the features in every stage.

    Makes training on a few CPU cores practical. Give the memory target that sets the patch size with
    ``-gpu_memory_target`` and, for coarser voxels, ``-overwrite_target_spacing``, as with every planner.
    """

    def __init__(
        self,
        dataset_name_or_id: str | int,
        gpu_memory_target_in_gb: float = 2,
        preprocessor_name: str = "DefaultPreprocessor",
        plans_name: str = "nnUNetPlansSmall",
        overwrite_target_spacing: list[float] | tuple[float, ...] | None = None,
        suppress_transpose: bool = False,
    ) -> None:
        super().__init__(
            dataset_name_or_id,
            gpu_memory_target_in_gb,
            preprocessor_name,
            plans_name,
            overwrite_target_spacing,
            suppress_transpose,
        )
        self.UNet_base_num_features = 16
        self.UNet_max_features_2d = 256
        self.UNet_max_features_3d = 128
