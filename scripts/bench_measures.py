"""How `scripts/bench.py` measures one net: a step's seconds, and bytes kept for backward, for training, in the file."""

import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from bench_nets import BOLA, ELEMENT, REFERENCE, WIDTH

ROWS, TOKENS = 4, 128
PROFILED = {"floor": "frozen floor", "LoRA": REFERENCE, "BoLA": BOLA, "elements": ELEMENT}


class Step:
    """One forward and backward on a fixed batch."""

    def __init__(self, dtype: torch.dtype):
        generator = torch.Generator().manual_seed(2)
        self.inputs = torch.randn(ROWS, TOKENS, WIDTH, generator=generator).to(dtype).requires_grad_()
        self.grad = torch.randn(ROWS, TOKENS, WIDTH, generator=generator).to(dtype)

    def __call__(self, net: nn.Module) -> float:
        """Seconds."""
        self.inputs.grad = None
        net.zero_grad(set_to_none=True)
        started = time.perf_counter()
        net(inputs_embeds=self.inputs).last_hidden_state.backward(self.grad)
        return time.perf_counter() - started

    def saved_bytes(self, net: nn.Module) -> int:
        """Bytes of the distinct storages alive for backward that are no parameter, no buffer, and not the input.

        Counted are tensors that nodes of the graph saved, and those that custom functions keep beside them.
        """
        known = {tensor.untyped_storage().data_ptr() for tensor in [*net.parameters(), *net.buffers(), self.inputs]}
        kept: dict[int, int] = {}

        def note(tensor: Tensor) -> Tensor:
            # SHiRA's delta is sparse: its numbers and its indices are kept.
            for part in (tensor._indices(), tensor._values()) if tensor.is_sparse else (tensor,):
                storage = part.untyped_storage()
                if storage.data_ptr() not in known:
                    kept[storage.data_ptr()] = storage.nbytes()
            # As it came, an operation's own output would hold the graph that holds it, for good.
            return tensor.detach()

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            output = net(inputs_embeds=self.inputs).last_hidden_state
        for tensor in held_by_functions(output.grad_fn):
            note(tensor)
        total = sum(kept.values())
        del output
        return total


def held_by_functions(root: Any) -> list[Tensor]:
    """Tensors among the attributes of the graph's nodes: what a custom function keeps without saving it."""
    found: list[Tensor] = []
    waiting, seen = [root], {root}
    while waiting:
        node = waiting.pop()
        found += [value for value in getattr(node, "__dict__", {}).values() if isinstance(value, Tensor)]
        following = {after for after, _ in node.next_functions if after is not None} - seen
        seen |= following
        waiting += following
    return found


def trainable(net: nn.Module) -> int:
    """Trainable numbers."""
    return sum(parameter.numel() for parameter in net.parameters() if parameter.requires_grad)


def state_bytes(net: nn.Module, step: Step) -> int:
    """Bytes of values, gradients, AdamW's state and indices after a step of training, which moves nothing."""
    step(net)
    values = [parameter for parameter in net.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(values, lr=0.0)
    optimizer.step()
    held = [*values, *(parameter.grad for parameter in values if parameter.grad is not None)]
    held += [entry for state in optimizer.state.values() for entry in state.values()]
    return sum(tensor.nbytes for tensor in [*held, *indices(net)])


def indices(net: nn.Module) -> list[Tensor]:
    """The integer tensors of adapters: buffers, and those that SHiRA keeps in a plain dict."""
    found = [buffer for name, buffer in net.named_buffers() if "sparse_delta_index" in name]
    for module in net.modules():
        found += [index for index in getattr(module, "shira_indices", {}).values() if isinstance(index, Tensor)]
    return found


def file_bytes(net: nn.Module) -> int:
    """Bytes of the saved adapter; 0 where there is none."""
    if not isinstance(net, PeftModel):
        return 0
    with tempfile.TemporaryDirectory() as folder:
        net.save_pretrained(folder, save_embedding_layers=False)
        return (Path(folder) / "adapter_model.safetensors").stat().st_size


def where_time_goes(nets: dict[str, nn.Module], step: Step, steps: int = 3) -> dict[str, dict[str, float]]:
    """Milliseconds a step that each operation itself took, of the 14 in which ours are farthest from the floor."""
    taken: dict[str, dict[str, float]] = {}
    for short, name in PROFILED.items():
        with profile(activities=[ProfilerActivity.CPU]) as record:
            for _ in range(steps):
                step(nets[name])
        taken[short] = {event.key: event.self_cpu_time_total / 1e3 / steps for event in record.key_averages()}

    def apart(key: str) -> float:
        floor = taken["floor"].get(key, 0.0)
        return -max(abs(taken[ours].get(key, 0.0) - floor) for ours in ("BoLA", "elements"))

    keys = sorted({key for one in taken.values() for key in one}, key=apart)
    rows = {key: {short: taken[short].get(key, 0.0) for short in PROFILED} for key in keys[:14]}
    return rows | {"all": {short: sum(taken[short].values()) for short in PROFILED}}
