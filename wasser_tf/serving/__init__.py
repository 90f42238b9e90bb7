"""Export of classifiers for TensorFlow Serving, the server's configuration files, and clients."""
