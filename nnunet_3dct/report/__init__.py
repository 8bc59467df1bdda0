"""The HTML report of a prediction folder: one self-contained file for readers who have no Python at hand."""
