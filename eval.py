"""Ask a finished run's model any task: `python eval.py --help` has the fields and worked examples."""

import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent
sys.path.insert(0, str(REPOSITORY / "src"))  # this checkout, installed or not

from tombola_cli.evaluate import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], conf_dir=REPOSITORY / "conf"))
