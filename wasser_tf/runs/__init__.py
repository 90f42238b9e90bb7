"""The runs of the binaries, one module per binary with the same name."""
