"""Runs compiled steps of wasser_tf on an accelerator whose machine has JAX but not TensorFlow."""
