"""Re-export, so that ``nnUNetv2_plan_and_preprocess -pl SmallUNetPlanner`` finds the planner."""

from nnunet_3dct.training.planners import SmallUNetPlanner, TinyUNetPlanner

__all__ = ["SmallUNetPlanner", "TinyUNetPlanner"]
