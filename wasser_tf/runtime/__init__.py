"""What every program needs: files that are whole or absent, interruption, provenance, progress, checked arguments."""
