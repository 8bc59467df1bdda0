"""Which of several trained models to use."""
