"""What each binary does: one module for each, with the same name."""
