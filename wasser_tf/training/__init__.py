"""WasserTrain and the parts of a training run that Keras does not have."""
