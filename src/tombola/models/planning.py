"""What a run would train, store and need, without weights.

python train.py method=bola model=llama3_8b task=math plan=true
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rich.console import Group
from transformers import PreTrainedModel

from tombola.models.architecture import empty_net
from tombola.models.counts import GATES, HEAD, Kind, count, head_size
from tombola.models.fits import Setting, settings_for
from tombola.models.four_bit import four_bit_bytes, quantised_layers
from tombola.models.head import head_modules
from tombola.models.memory import Load, Memory, estimate
from tombola.models.plan_tables import plan_tables

PATCH_PIXELS = 16 * 16  # by which the trainer measures an image against its token budget


@dataclass(frozen=True)
class Plan:
    """The numbers of a run that has not begun."""

    method: str
    model: str
    task: str
    kinds: tuple[Kind, ...]  # by name of the adapted modules; then gates, then the head
    base: int  # the model's own parameters, without adapter and head
    frozen: int  # of these, those that are not trained
    steps: int | None  # optimizer steps of one phase; None where nobody has counted the task's rows
    micro_batch_tokens: int  # on one rank
    memory: Memory
    launch: str
    ranks: int
    settings: tuple[Setting, ...]  # of a large delta: what would make it fit one card
    dense: int  # numbers of the delta that a first phase trains whole, before any is chosen; 0 where there is none

    @property
    def trainable(self) -> int:
        """Trainable parameters of the adapter, gates included and the head not: the papers' #Params."""
        return sum(kind.trainable for kind in self.kinds if kind.name != HEAD)

    @property
    def gates(self) -> int:
        """Trainable gates, a part of `trainable`."""
        return sum(kind.trainable for kind in self.kinds if kind.name == GATES)

    @property
    def head(self) -> int:
        """Parameters of the new head, trained in full."""
        return sum(kind.trainable for kind in self.kinds if kind.name == HEAD)

    @property
    def stored(self) -> int:
        """Numbers in the saved file, without the head's."""
        return sum(kind.stored for kind in self.kinds if kind.name != HEAD)

    @property
    def total(self) -> int:
        """Parameters of the model with its adapter and head."""
        return self.frozen + self.trainable + self.head

    def render(self) -> Group:
        """Tables for a terminal."""
        return Group(*plan_tables(self))


def plan(config: Mapping[str, Any]) -> Plan:
    """The plan of a composed config: nothing is downloaded and no weight is allocated.

    Raises ValueError where the method, the model and the task do not fit together.
    """
    model, task, training, launch = config["model"], config["task"], config["training"], config["launch"]
    adapter = config["method"].get("config") or {}
    net = empty_net(model, kind=task["kind"], labels=task["labels"])
    base = net.num_parameters() - head_size(model, net)
    quantised = _quantised(config["method"], model, net)
    counts = count(config["method"], model, net)
    row_tokens = tokens_of_row(model, task, training)
    chosen = sum(kind.trainable for kind in counts.kinds if kind.name not in (GATES, HEAD))
    # LoTA, LT-SFT and RIGSA say in their config that they begin dense; sparse adapters give what is left in the end.
    dense = counts.entries if str(config["method"]["_target_"]).endswith(".SparseAdapter") else 0
    values = dense or chosen
    load = Load(
        frozen=counts.frozen,
        trainable=counts.trainable - chosen + values,
        half=values if adapter.get("values_dtype") == "bfloat16" else 0,
        row_tokens=row_tokens,
        tokens=micro_batch_tokens(model, training, launch, row_tokens),
        inputs=counts.inputs,
        cast=str(adapter.get("_target_")).endswith(".LoraConfig") and model["dtype"] != "float32",
        dropout=bool(adapter.get("lora_dropout") or adapter.get("dropout")),
        quantised=quantised,
        quantised_bytes=four_bit_bytes(quantised, double=bool(config["method"].get("double_quantisation"))),
    )
    return Plan(
        method=config["method"]["name"],
        model=model["name"],
        task=task["name"],
        kinds=counts.kinds,
        base=base,
        frozen=counts.frozen,
        steps=optimizer_steps(task, training) if counts.trainable else 0,
        micro_batch_tokens=load.tokens,
        memory=estimate(model, training, launch, load),
        launch=launch["kind"],
        ranks=launch["nproc"],
        settings=settings_for(adapter, model, training, launch, load, values),
        dense=dense,
    )


def _quantised(method: Mapping[str, Any], model: Mapping[str, Any], net: PreTrainedModel) -> int:
    """Weights of the frozen model that the method holds in four bits."""
    if not method.get("quantisation"):
        return 0
    return sum(layer.weight.numel() for _, layer in quantised_layers(net, head_modules(model)))


def optimizer_steps(task: Mapping[str, Any], training: Mapping[str, Any]) -> int | None:
    """Steps of one phase: epochs * ceil(rows / batch), under the caps; None where the rows are unknown and uncapped."""
    rows = task["rows"]["train"]
    if rows is None:
        return training["max_steps"]
    rows = min(rows, task.get("train_rows") or rows)
    if not task["rows"].get("validation"):
        rows -= training["validation_rows"]
    if training["max_rows"] is not None:
        rows = min(rows, training["max_rows"])
    steps = math.ceil(training["epochs"] * math.ceil(rows / training["batch_size"]))
    return steps if training["max_steps"] is None else min(steps, training["max_steps"])


def tokens_of_row(model: Mapping[str, Any], task: Mapping[str, Any], training: Mapping[str, Any]) -> int:
    """Tokens of a typical training row: the task's estimate, or an image's patches and its class token."""
    if model["role"] == "image_encoder":
        values = model["architecture"]
        return int(values["image_size"] // values["patch_size"]) ** 2 + 1
    return int(min(task["tokens"]["train"], training["max_length"]))


def micro_batch_tokens(
    model: Mapping[str, Any], training: Mapping[str, Any], launch: Mapping[str, Any], row_tokens: int
) -> int:
    """Tokens of one micro-batch on one rank: the budget's, or all of the rank's rows where they are fewer."""
    rows = math.ceil(training["batch_size"] / launch["nproc"])
    if model["role"] != "image_encoder":
        return int(max(row_tokens, min(training["token_budget"], rows * row_tokens)))
    in_budget = training["token_budget"] // max(1, model["architecture"]["image_size"] ** 2 // PATCH_PIXELS)
    return max(1, min(rows, in_budget)) * row_tokens
