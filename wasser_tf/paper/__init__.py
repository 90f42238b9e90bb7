"""The tables and figures of the paper (WasserTrain, ICASSP 2022)."""
