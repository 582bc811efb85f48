"""Datasets of other formats: each is read into the same values, and written from them."""
