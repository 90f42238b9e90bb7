"""`python -m wasser_tf` is `wasser-tf`."""

from wasser_tf.starter import main

main()
