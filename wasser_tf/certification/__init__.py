"""Certificates of robustness: radii of the Wasserstein ball within which no legal plan changes the answer."""
