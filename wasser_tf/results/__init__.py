"""From evaluations to what is published: packaged classifiers and cards, the leaderboard, the paper's tables."""
