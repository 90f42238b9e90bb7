"""Scores attacks and classifiers: metrics, sweeps over radii, sanity checks, reports and figures."""
