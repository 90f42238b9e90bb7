"""`python -m wasser_tf_command` is `wasser-tf`."""

from wasser_tf_command import main

main()
