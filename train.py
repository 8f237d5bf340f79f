"""Fine-tune one model on one task by one method: `python train.py --help` shows the choices and worked examples."""

import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent
sys.path.insert(0, str(REPOSITORY / "src"))  # this checkout, installed or not

from tombola_cli.main import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], conf_dir=REPOSITORY / "conf"))
