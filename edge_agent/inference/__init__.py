"""From an observation to a prediction: one ONNX Runtime session a bundle, swapped while requests run."""
