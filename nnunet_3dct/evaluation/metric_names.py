"""The class metrics that are shown, in their order, and their names."""

from __future__ import annotations

CLASS_METRICS = {
    "accuracy": "Accuracy",
    "balanced_accuracy": "Balanced accuracy",
    "f1_macro": "F1, macro",
    "f1_weighted": "F1, weighted",
    "auc_macro": "AUC, macro",
    "average_precision_macro": "Average precision, macro",
    "cohen_kappa": "Cohen's kappa",
    "matthews_corrcoef": "Matthews correlation",
    "brier_score": "Brier score (0 best, 2 worst)",
    "expected_calibration_error": "Expected calibration error",
}
METRICS_OF_A_CLASS = {
    "f1_per_class": "F1",
    "precision_per_class": "Precision",
    "recall_per_class": "Recall",
    "auc_per_class": "AUC",
    "average_precision_per_class": "Average precision",
}
