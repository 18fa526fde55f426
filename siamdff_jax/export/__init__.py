"""Weights in and out: one-file checkpoints, StableHLO, SavedModel, TFLite, ONNX; PyTorch backbones in."""
