"""vLLM in a process of its own: requests come as JSON lines, and token ids go back as JSON lines.

Needs nothing but vLLM, so that it can run in another environment than the rest: vLLM pins torch and transformers.

    python -P vllm_process.py CHECKPOINT DTYPE
"""

import json
import os
import sys
from typing import Any


def main(checkpoint: str, dtype: str) -> None:
    """Answers each line `{"prompts": [[id, ...], ...], "max_tokens", "ends", "stops"}` by `[[id, ...], ...]`."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what vLLM and its workers print is no reply
    from vllm import LLM, SamplingParams

    # Left to itself, vLLM computes float32 weights in half precision and takes settings from generation_config.json.
    engine = LLM(model=checkpoint, dtype=dtype, seed=0, generation_config="vllm")
    for line in sys.stdin:
        asked: dict[str, Any] = json.loads(line)
        greedy = SamplingParams(
            temperature=0.0,
            max_tokens=asked["max_tokens"],
            stop_token_ids=asked["ends"],
            stop=asked["stops"] or None,
        )
        prompts = [{"prompt_token_ids": ids} for ids in asked["prompts"]]
        found = [list(one.outputs[0].token_ids) for one in engine.generate(prompts, greedy, use_tqdm=False)]
        replies.write(json.dumps(found) + "\n")
        replies.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
