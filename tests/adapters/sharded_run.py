"""Two gloo ranks train a tiny Llama with BoLA under one engine; rank 0 prints how far it is from one process's run.

python -m torch.distributed.run --standalone --nproc_per_node=2 tests/adapters/sharded_run.py fsdp2
"""

import sys

import torch
import torch.distributed as dist
from peft import PeftModel, get_peft_model_state_dict
from peft.utils.other import fsdp_auto_wrap_policy
from tests.adapters.tiny_models import WORDS, bola, layers, tiny, trainable
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, StateDictType, fully_shard

from tombola.training import leave

STEPS = 10


def train(model: nn.Module, parameters: list[nn.Parameter], rank: int, world: int) -> None:
    data = torch.randint(0, WORDS, (STEPS, 4, 9), generator=torch.Generator().manual_seed(5))
    optimizer = torch.optim.AdamW(parameters, lr=0.01, weight_decay=0.1)
    for rows in data[:, rank::world]:
        model(input_ids=rows, labels=rows).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def fsdp1(model: PeftModel, original: bool, rank: int, world: int) -> dict[str, Tensor]:
    wrapped = FullyShardedDataParallel(
        model, auto_wrap_policy=fsdp_auto_wrap_policy(model), use_orig_params=original, device_id=torch.device("cpu")
    )
    train(wrapped, trainable(wrapped), rank, world)
    with FullyShardedDataParallel.summon_full_params(wrapped):
        assert all(layer.unique_blocks("default") > 0 for layer in layers(wrapped))
    with FullyShardedDataParallel.state_dict_type(wrapped, StateDictType.FULL_STATE_DICT):
        state = wrapped.state_dict()
    plain = {key.replace("_fsdp_wrapped_module.", ""): value for key, value in state.items()}
    return {key.replace(".default", ""): value for key, value in plain.items() if "bola_" in key}


def fsdp2(model: PeftModel, rank: int, world: int) -> dict[str, Tensor]:
    mesh = init_device_mesh("cpu", (world,))
    for block in model.base_model.model.model.layers:
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    train(model, trainable(model), rank, world)
    assert all(layer.unique_blocks("default") > 0 for layer in layers(model))
    return {key: value.full_tensor() for key, value in get_peft_model_state_dict(model).items()}


def main(engine: str) -> None:
    dist.init_process_group("gloo")
    rank, world = dist.get_rank(), dist.get_world_size()
    alone = bola(tiny("llama"))
    train(alone, trainable(alone), 0, 1)
    expected = get_peft_model_state_dict(alone)
    model = bola(tiny("llama"))
    got = fsdp2(model, rank, world) if engine == "fsdp2" else fsdp1(model, engine == "fsdp1_original", rank, world)
    if rank == 0:
        assert {key: value.shape for key, value in got.items()} == {key: v.shape for key, v in expected.items()}
        print("largest difference", max((got[key] - expected[key]).abs().max().item() for key in expected))
    dist.barrier()


if __name__ == "__main__":
    main(sys.argv[1])
    leave()
