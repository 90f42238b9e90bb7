"""Benchmarks: times and ratios of times. They are started by hand (`make bench`) and are not part of the tests."""
