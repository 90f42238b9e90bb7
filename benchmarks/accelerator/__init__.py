"""Compiled steps of this project on an accelerator that TensorFlow is not installed beside, but JAX is."""
