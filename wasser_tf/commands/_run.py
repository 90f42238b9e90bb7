"""How a command runs: errors in one sentence, interruption, exit codes."""

import os
import re
import sys
from collections.abc import Callable, Sequence

from absl import app, flags, logging

from wasser_tf.runtime import interruption, progress, provenance

FLAGS = flags.FLAGS


def run(main: Callable[[], None], goes_on: str = "give the same command again") -> None:
    """Runs a binary.

    What is wrong with its input, or with the disk, is told in one sentence, without a traceback, and the exit is 1.
    SIGINT and SIGTERM let it finish and save the batch at work, and the exit is 130 or 143.

    Args:
      main: What the binary does.
      goes_on: How to go on with a run that was stopped.
    """
    program = os.path.basename(sys.argv[0])
    if "quiet" not in FLAGS:
        flags.DEFINE_bool("quiet", False, "Whether to print results and warnings only, without progress.")
        # --help lists the flags of the program.
        FLAGS.register_key_flag_for_module(sys.argv[0], FLAGS["quiet"])

    def guarded(arguments: Sequence[str]) -> None:
        if len(arguments) > 1:
            sys.exit(f"{program}: flags begin with --, got {' '.join(arguments[1:])}; --help lists them.")
        # Not using_default_value: absl sets the flag itself before it calls this.
        if not FLAGS["verbosity"].present:
            # tensorflow-datasets warns of its own deprecations.
            logging.set_verbosity(logging.ERROR)
        progress.set_quiet(FLAGS.quiet)
        # Now, for the checkout may move on before a long run writes what it ran from.
        provenance.commit()
        try:
            with interruption.watched():
                main()
        except (ValueError, OSError) as error:
            # --verbosity=1 shows where it came from.
            logging.debug("The error came from here:", exc_info=True)
            sys.exit(f"{program}: {error}")
        except interruption.Interrupted as stopped:
            print(f"{program}: {stopped}, what was done is saved: {goes_on}.", file=sys.stderr)
            sys.exit(stopped.exit_code)
        except KeyboardInterrupt:
            print(f"{program}: stopped at once: {goes_on}.", file=sys.stderr)
            sys.exit(130)

    app.run(guarded, flags_parser=lambda arguments: _parse(program, arguments))


def _parse(program: str, arguments: Sequence[str]) -> list[str]:
    """Parses flags as absl does, but reports all that is wrong in one line."""
    try:
        rest = FLAGS(arguments)
        if "output_dir" in FLAGS and FLAGS["output_dir"].value == "":
            # It would be the current folder.
            raise flags.Error("flag --output_dir=: the folder has no name; give . for the current one")
        return rest
    except flags.Error as error:
        lines = sorted(line.strip().removesuffix(".") for line in str(error).splitlines() if line.strip())
        lines = [
            re.sub(r"flag --(\w+)=None: Flag --\1 must have a value other than None", r"--\1 is needed", line)
            for line in lines
        ]
        sys.exit(f"{program}: {'; '.join(lines)}; --help lists the flags.")
