"""Fixtures of evaluations."""

from tests.fixtures.evaluation import *  # noqa: F403
