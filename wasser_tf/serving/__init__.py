"""From a classifier to TensorFlow Serving: the export, what the server is configured by, and a client."""
