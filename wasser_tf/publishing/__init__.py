"""Packaged classifiers, their cards and the leaderboard."""
