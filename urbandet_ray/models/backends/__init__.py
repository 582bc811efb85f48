"""What runs a model: LiteRT or TensorFlow, each behind `models.detector.Detector`."""
