"""Certificates of robustness: radii of the Wasserstein ball within which no feasible plan changes the answer."""
