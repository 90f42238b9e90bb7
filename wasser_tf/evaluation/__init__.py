"""Scores attacks and classifiers: metrics, records, sweeps over radii, minimal radii and sanity checks."""
