"""Planners for machines without a GPU."""

from __future__ import annotations

from nnunet_3dct.upstream import ExperimentPlanner


class SmallUNetPlanner(ExperimentPlanner):
    """nnU-Net's planner with half the features in every stage, so about a quarter of the compute.

    The memory target that sets patch and batch size is given with ``-gpu_memory_target`` and coarser voxels
    with ``-overwrite_target_spacing``, as with every planner of nnU-Net.
    """

    UNet_base_num_features: int
    UNet_max_features_2d: int
    UNet_max_features_3d: int

    base_features = 16
    default_plans_name = "nnUNetPlansSmall"

    def __init__(
        self,
        dataset_name_or_id: str | int,
        gpu_memory_target_in_gb: float = 2,
        preprocessor_name: str = "DefaultPreprocessor",
        plans_name: str | None = None,
        overwrite_target_spacing: list[float] | tuple[float, ...] | None = None,
        suppress_transpose: bool = False,
    ) -> None:
        super().__init__(
            dataset_name_or_id,
            gpu_memory_target_in_gb,
            preprocessor_name,
            plans_name or self.default_plans_name,
            overwrite_target_spacing,
            suppress_transpose,
        )
        scale = self.base_features / self.UNet_base_num_features
        self.UNet_base_num_features = self.base_features
        self.UNet_max_features_2d = round(self.UNet_max_features_2d * scale)
        self.UNet_max_features_3d = round(self.UNet_max_features_3d * scale)


class TinyUNetPlanner(SmallUNetPlanner):
    """A quarter of the features: for demonstrations and tests, minutes on two CPU cores."""

    base_features = 8
    default_plans_name = "nnUNetPlansTiny"
