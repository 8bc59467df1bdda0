"""Datasets made from what a hospital, a challenge or a scanner has."""
