"""Checks of the project that take longer than its tests: kills, full disks, bad input, long runs, mutations."""
