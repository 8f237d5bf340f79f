"""`make bench-eval`: how fast answers come and how little is padding, each beside the usual way, in one run.

1. Choosing: our scoring of options against lm-eval's HFLM on the same HellaSwag rows at the same batch size.
2. Generating: batches against one prompt at a time on GSM8K questions, greedy, float32.
3. Padding: tokens that are forwarded for each token of a row, and the time of a training step, of our micro-batches
   against plain ones. Both have the rows of the same optimizer batches.

The model is SmolLM2-135M, on the CPU. What is compared takes turns, a batch or a few at a time, so that whatever else
the machine does meets both. Ratios are medians over the turns, by the clock and by this process's CPU time.

    TOMBOLA_DATA=DIR python scripts/bench_eval.py [--rows 300] [--prompts 100] [--steps 3] [--out results/bench]
"""

import argparse
import json
import os
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from bench_eval_answers import choosing, generating
from bench_eval_padding import padding
from bench_eval_report import markdown, verdicts
from tombola.models import load_host
from tombola_cli.config.compose import compose
from tombola_cli.records import gather

REPOSITORY = Path(__file__).resolve().parents[1]
PARTS: dict[str, Callable[..., dict[str, Any]]] = {"choosing": choosing, "generating": generating, "padding": padding}


def main() -> int:
    """Measure, print, and write `<out>/eval.json` and `<out>/eval.md` after each part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=300, help="HellaSwag questions")
    parser.add_argument("--prompts", type=int, default=100, help="GSM8K questions")
    parser.add_argument("--new-tokens", type=int, default=64, help="generated for each at most")
    parser.add_argument("--batch", type=int, default=16, help="rows of a batch")
    parser.add_argument("--steps", type=int, default=3, help="training steps timed for each data set and way")
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=list(PARTS))
    parser.add_argument("--out", type=Path, default=REPOSITORY / "results" / "bench")
    options = parser.parse_args()
    console = Console()
    data = Path(os.environ.get("TOMBOLA_DATA") or "(not set)")
    if not all((data / folder).is_dir() for folder in ("lm_eval", "llm_adapters")):
        sys.exit(f"error: TOMBOLA_DATA={data}: expected a folder with lm_eval/ and llm_adapters/")
    if find_spec("lm_eval") is None:
        sys.exit('error: lm-eval is not installed; pip install "tombola[eval]", or type make bench-eval')
    model = compose(["model=smollm2_135m"])["model"]
    host = load_host(model, kind="generate", labels=0, seed=0)
    result: dict[str, Any] = {
        "settings": {name: getattr(options, name) for name in ("rows", "prompts", "new_tokens", "batch", "steps")},
        "threads": torch.get_num_threads(),
        "provenance": gather(root=REPOSITORY, argv=sys.argv, model=host.provenance, data={"source": str(data)}),
    }
    for part in options.parts:
        result[part] = PARTS[part](host, data, options, console)
        for line in verdicts(result, part):
            console.print(" | ".join(line), highlight=False, soft_wrap=True)
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "eval.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
        (options.out / "eval.md").write_text(markdown(result), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
