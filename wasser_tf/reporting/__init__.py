"""Every table, figure and report."""
