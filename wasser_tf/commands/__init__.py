"""The commands of `wasser-tf` with their flags, one module a command; wasser_tf/starter/ starts them."""
