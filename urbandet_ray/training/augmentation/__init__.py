"""Augmentations beside the OD API's own, on one image's tensors (training/model.py)."""
