"""Sharding of the frozen backbone over ranks (FSDP2), through accelerate's plugin and helpers.

Weights live once in the group of ranks that shares them and are gathered block by block during each pass; prompt and
regularizer stay outside, replicated.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, init_empty_weights
from accelerate.parallelism_config import ParallelismConfig
from accelerate.utils import FullyShardedDataParallelPlugin, fsdp2_prepare_model
from huggingface_hub import snapshot_download
from torch import Tensor, distributed, nn
from torch.distributed.checkpoint import state_dict_loader
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from supmer.backbone.kinds import block_names, model_class
from supmer.backbone.load import HEAD, check_checkpoint, finish_backbone, load_backbone, load_model_config
from supmer.backbone.weights import check_finite
from supmer.config import BackboneConfig, Config
from supmer.errors import setting_error
from supmer.model.build import wrap
from supmer.model.prompted import PromptedModel


def build_sharded_model(config: Config, centroids: Tensor | None, device: torch.device) -> PromptedModel:
    """Load, shard and check the backbone on the ranks of the initialized `torch.distributed` world.

    Pretrained weights are read shard by shard: no rank ever holds the whole model.

    Raises:
        UserError: the world does not divide into groups of `train.shard_size` ranks, or weights cannot be read.
    """
    is_pretrained = config.backbone.weights == "pretrained"
    if is_pretrained:
        check_checkpoint(config.backbone)
    backbone = _empty_backbone(config.backbone) if is_pretrained else load_backbone(config.backbone)
    model = wrap(backbone, None, config.meta.pooling)
    model = shard(model, shard_size(config))
    if is_pretrained:
        computed = dict(model.backbone.named_buffers())  # frequencies of rotary embeddings: in no checkpoint
        model.to_empty(device=device)
        for name, buffer in model.backbone.named_buffers():
            buffer.copy_(computed[name])
        _load_shards(model.backbone, config.backbone)
    model.set_centroids(torch.zeros(1, model.width) if centroids is None else centroids)
    model.centroids = model.centroids.to(device)
    check_sharding(model, shard_size(config), has_own_head=_has_own_head(config.backbone) if is_pretrained else False)
    return model


def shard_size(config: Config) -> int:
    """Return how many ranks share one copy of the weights."""
    world = distributed.get_world_size()
    size = world if config.train.sharding == "full" else config.train.shard_size
    if world % size:
        raise setting_error("train.shard_size", size, f"must divide the number of workers, {world}")
    return size


def shard(model: PromptedModel, size: int) -> PromptedModel:
    """Shard a model in place by transformer block over groups of `size` ranks, and replicate it across the groups."""
    accelerator = Accelerator(cpu=not torch.cuda.is_available())
    world = distributed.get_world_size()
    assert accelerator.num_processes == world, f"accelerate sees {accelerator.num_processes} of {world} ranks"
    plugin = FullyShardedDataParallelPlugin(
        fsdp_version=2,
        auto_wrap_policy="transformer_based_wrap",
        transformer_cls_names_to_wrap=block_names(model.backbone),
        reshard_after_forward=True,
        cpu_ram_efficient_loading=False,
    )
    # One embedding module under three names counts as three owners of one weight.
    model.backbone.set_input_embeddings(model.backbone.get_input_embeddings())
    with _sharding_state(accelerator, plugin, world, size):
        sharded: PromptedModel = fsdp2_prepare_model(accelerator, model)
    return sharded


@contextmanager
def _sharding_state(
    accelerator: Accelerator, plugin: FullyShardedDataParallelPlugin, world: int, size: int
) -> Iterator[None]:
    """Give accelerate's process-wide state the plugin and the mesh while a model is sharded.

    On CPU an Accelerator refuses both at construction, though sharding needs nothing else of it.
    """
    state = accelerator.state
    state.fsdp_plugin = plugin
    if size < world:
        state.parallelism_config = ParallelismConfig(dp_replicate_size=world // size, dp_shard_size=size)
        state.device_mesh = state.parallelism_config.get_device_mesh(accelerator.device.type)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Slicing a flattened dim", UserWarning)  # accelerate's own mesh
            yield
    finally:
        state.fsdp_plugin = state.parallelism_config = state.device_mesh = None


def check_sharding(model: PromptedModel, size: int, *, has_own_head: bool) -> None:
    """Assert that every parameter is split over `size` ranks and that an untied head is still untied."""
    for name, parameter in model.named_parameters():
        assert isinstance(parameter, DTensor), f"{name} is not sharded"
        assert parameter.device_mesh.size(-1) == size, (
            f"{name} is split over {parameter.device_mesh.size(-1)} of {size} ranks"
        )
    tied = model.backbone.get_output_embeddings().weight is model.backbone.get_input_embeddings().weight
    assert tied != has_own_head, "the output head was tied to the embeddings (or torn from them) while sharding"


def local_parameter_bytes(model: nn.Module) -> int:
    """Return the bytes of parameters that this rank stores."""
    tensors = [p.to_local() if isinstance(p, DTensor) else p for p in model.parameters()]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _empty_backbone(config: BackboneConfig) -> PreTrainedModel:
    """Build the backbone without memory for weights, its head untied if the checkpoint has one of its own."""
    model_config = load_model_config(config)
    with init_empty_weights(include_buffers=False):
        model = model_class(model_config).from_config(
            model_config, dtype=getattr(torch, config.dtype), attn_implementation=config.attention
        )
    model.tie_weights()  # without memory each of the tied names has become a parameter of its own
    if model_config.is_encoder_decoder and _has_own_head(config):
        model.lm_head.weight = nn.Parameter(torch.empty_like(model.lm_head.weight), requires_grad=False)
    return finish_backbone(model, config)


def _load_shards(backbone: PreTrainedModel, config: BackboneConfig) -> None:
    """Read this rank's part of every tensor from the checkpoint's safetensors files; each rank checks what was read."""
    there = _tensor_names(config)
    prefix = f"{backbone.base_model_prefix}."
    tensors: dict[str, Any] = {
        name if name in there else name.removeprefix(prefix): tensor for name, tensor in backbone.named_parameters()
    }
    state_dict_loader.load(tensors, storage_reader=HuggingFaceStorageReader(str(_checkpoint_folder(config))))
    check_finite("backbone.name", config.name, ((name, tensor.to_local()) for name, tensor in tensors.items()))


def _has_own_head(config: BackboneConfig) -> bool:
    """Return whether the head has weights of its own: a T5's configuration object forgets it, the checkpoint does not."""
    model_config = load_model_config(config)
    return HEAD in _tensor_names(config) if model_config.is_encoder_decoder else not model_config.tie_word_embeddings


def _tensor_names(config: BackboneConfig) -> set[str]:
    reader = HuggingFaceStorageReader(str(_checkpoint_folder(config)))
    return set(reader.read_metadata().state_dict_metadata)


def _checkpoint_folder(config: BackboneConfig) -> Path:
    folder = Path(config.location)
    if not folder.is_dir():
        folder = Path(snapshot_download(config.name, revision=config.revision, allow_patterns=["*.safetensors*", "*.json"]))
    if not any(folder.glob("*.safetensors")):
        raise setting_error("backbone.name", config.name, f"no safetensors weights in {folder}")
    return folder
