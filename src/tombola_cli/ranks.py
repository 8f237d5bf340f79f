"""Several ranks of one run, under torch.distributed.run: `python -m tombola_cli.ranks COUNT RUN_DIR`.

The launcher is called from here and not by its own command, because that one answers a signal by killing the ranks
after 30 seconds, checkpoint or not, and a rank's failure by a traceback of its own and exit status 1.
"""

from __future__ import annotations

import logging
import signal
import sys

from tombola_cli.parent import EX_TEMPFAIL, die_with_parent, forwarding

STOPPED = (EX_TEMPFAIL, -signal.SIGTERM)  # the launcher ends the other ranks by SIGTERM when the first has left


def main(count: int, run_dir: str) -> int:
    """0 if every rank ended well, `EX_TEMPFAIL` if they stopped after a checkpoint, else 1."""
    die_with_parent()
    import psutil  # comes with accelerate
    from torch.distributed import run as launcher
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    logging.getLogger("torch.distributed").setLevel(logging.CRITICAL)  # the ranks have said what went wrong
    # SIGHUP alone, so that the handlers set here stay
    options = ["--standalone", f"--nproc_per_node={count}", "--signals-to-handle=SIGHUP"]
    with forwarding(lambda: [child.pid for child in psutil.Process().children()]):
        try:
            launcher.run(launcher.parse_args([*options, "-m", "tombola_cli.worker", run_dir]))
        except ChildFailedError as error:
            return status([failure.exitcode for failure in error.failures.values()])
    return 0


def status(codes: list[int]) -> int:
    """The run's exit status from those of its failed ranks."""
    return EX_TEMPFAIL if EX_TEMPFAIL in codes and set(codes) <= set(STOPPED) else 1


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2]))
