"""Checks of the project itself that take longer than its tests: mutations."""
