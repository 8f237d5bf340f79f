"""Stands in for vLLM, which needs a GPU: the few names that we use of it, answered by transformers on a CPU.

It shows that the hand-over is right (a checkpoint that loads by itself, prompts as token ids, greedy settings) and
nothing about vLLM itself.
"""

from types import SimpleNamespace

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


class SamplingParams(SimpleNamespace):
    pass


class LLM:
    def __init__(self, *, model, dtype, seed, generation_config):
        assert generation_config == "vllm", "else settings of the model's own would be taken"
        assert seed == 0
        print("a banner on standard output, dtype", dtype)
        self.net = AutoModelForCausalLM.from_pretrained(model, dtype=getattr(torch, dtype)).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(model)

    def generate(self, prompts, params, use_tqdm):
        assert params.temperature == 0.0
        print("noise on standard output", use_tqdm)
        return [
            SimpleNamespace(outputs=[SimpleNamespace(token_ids=self.one(prompt["prompt_token_ids"], params))])
            for prompt in prompts
        ]

    def one(self, ids, params):
        new = []
        with torch.no_grad():
            while len(new) < params.max_tokens:
                new.append(int(self.net(input_ids=torch.tensor([[*ids, *new]])).logits[0, -1].argmax()))
                text = self.tokenizer.decode(new)
                if new[-1] in params.stop_token_ids or any(stop in text for stop in params.stop or ()):
                    break
        return tuple(new)
