"""Fixtures of publications."""

from tests.fixtures.publishing import *  # noqa: F403
