"""Finds the mistakes in a pipeline.config before they cost a training run."""
