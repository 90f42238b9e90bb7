"""Checks of the project itself that take longer than its tests: kills, full disks, bad input, long runs, mutations."""
