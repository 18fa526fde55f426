"""The tracker's network in other formats: one-file checkpoints, StableHLO, SavedModel, TFLite, ONNX."""
