"""Timings and ratios, run by hand (`make bench`), never part of the tests."""
