"""CLIPModel of transformers as open_clip knows it: its configuration, its preprocessing, the names of its weights."""

import json
from pathlib import Path

import torch
from torch import Tensor

_NAMES = {
    "vision_model.embeddings.class_embedding": "visual.class_embedding",
    "vision_model.embeddings.patch_embedding.": "visual.conv1.",
    "vision_model.embeddings.position_embedding.weight": "visual.positional_embedding",
    "vision_model.pre_layrnorm.": "visual.ln_pre.",
    "vision_model.encoder.layers.": "visual.transformer.resblocks.",
    "vision_model.post_layernorm.": "visual.ln_post.",
    "visual_projection.weight": "visual.proj",
    "text_model.embeddings.token_embedding.": "token_embedding.",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "text_model.encoder.layers.": "transformer.resblocks.",
    "text_model.final_layer_norm.": "ln_final.",
    "text_projection.weight": "text_projection",
    ".layer_norm1.": ".ln_1.", ".layer_norm2.": ".ln_2.", ".mlp.fc1.": ".mlp.c_fc.", ".mlp.fc2.": ".mlp.c_proj.",
    ".self_attn.out_proj.": ".attn.out_proj.", ".self_attn.q_proj.": ".attn.in_proj_",
}


def architecture(content: dict) -> dict:
    """open_clip's configuration of a CLIPModel of transformers, whose defaults are those of ViT-B/32."""
    if content.get("model_type") != "clip":
        raise ValueError(f"model_type is {content.get('model_type')!r}, not 'clip'")
    common = {"num_hidden_layers": 12, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5}
    vision = {**common, "hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12, "image_size": 224,
              "patch_size": 32, **content["vision_config"]}
    text = {**common, "hidden_size": 512, "intermediate_size": 2048, "num_attention_heads": 8, "vocab_size": 49408,
            "max_position_embeddings": 77, **content["text_config"]}
    if text["vocab_size"] != 49408:
        raise ValueError(f"vocab_size is {text['vocab_size']}, not the 49408 of CLIP's own tokenizer")
    if {vision["hidden_act"], text["hidden_act"]} not in ({"quick_gelu"}, {"gelu"}):
        raise ValueError(f"hidden_act is {vision['hidden_act']!r} and {text['hidden_act']!r}, not twice quick_gelu "
                         "or gelu")
    towers = [{"width": tower["hidden_size"], "layers": tower["num_hidden_layers"],
               "mlp_ratio": tower["intermediate_size"] / tower["hidden_size"],
               "norm_kwargs": {"eps": tower["layer_norm_eps"]}} for tower in (vision, text)]
    return {"embed_dim": content.get("projection_dim", 512), "quick_gelu": vision["hidden_act"] == "quick_gelu",
            "vision_cfg": {**towers[0], "head_width": vision["hidden_size"] // vision["num_attention_heads"],
                           "image_size": vision["image_size"], "patch_size": vision["patch_size"]},
            "text_cfg": {**towers[1], "heads": text["num_attention_heads"], "vocab_size": text["vocab_size"],
                         "context_length": text["max_position_embeddings"]}}


def preprocessing(folder: Path) -> dict:
    """Mean and standard deviation of ``preprocessor_config.json`` where there is one; the rest is CLIP's own."""
    file = folder / "preprocessor_config.json"
    content = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return {ours: content[theirs] for ours, theirs in (("mean", "image_mean"), ("std", "image_std"))
            if theirs in content}


def is_named_so(found: dict[str, Tensor]) -> bool:
    """Whether these are tensors of transformers' CLIPModel."""
    return any(key.startswith("vision_model.") for key in found)


def weights(found: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors named as in transformers' CLIPModel -> as in open_clip, which has query, key and value in one."""
    tensors = {}
    for key, value in found.items():
        if ".k_proj." in key or ".v_proj." in key or key.endswith("position_ids"):
            continue
        if ".q_proj." in key:
            parts = [found.get(key.replace(".q_proj.", f".{part}_proj.")) for part in "qkv"]
            if any(part is None or part.shape != value.shape for part in parts):
                continue  # reported as missing
            value = torch.cat(parts)
        if key in ("visual_projection.weight", "text_projection.weight"):
            value = value.T
        for theirs, ours in _NAMES.items():
            key = key.replace(theirs, ours)
        tensors[key] = value
    return tensors
