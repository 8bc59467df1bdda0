"""Scripts that make the figures of the documentation; run them from the repository's root."""
