"""WasserTrain, and what a training run needs beside Keras."""
