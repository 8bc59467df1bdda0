"""The phantom: synthetic CT crops with a pancreas, a lesion and a subtype."""
