# Made from the exercises of notebooks/source/17_gpt2.py by notebooks/tools/build.py. Edit that text, not this file.
"""The right answers to the exercises of 17 · GPT-2: its weights in, yours out."""

import torch


def our_name(name):
    """A parameter's name in GPT-2, such as transformer.h.3.ln_1.bias -> its name in our GPT: blocks.3.norm_1.bias."""
    words = {
        "h": "blocks",
        "ln_1": "norm_1",
        "ln_2": "norm_2",
        "ln_f": "norm",
        "attn": "attention",
        "c_attn": "qkv",
        "c_proj": "proj",
        "mlp": "feed_forward",
        "c_fc": "fc",
        "wte": "token_embedding",
        "wpe": "position_embedding",
    }
    parts = name.removeprefix("transformer.").split(".")
    return ".".join(words.get(part, part) for part in parts)


def table_for_alphabet(table, old, new):
    """table (len(old), C); old, new: strings of distinct characters -> the table for new, (len(new), C)."""
    mean = table.mean(0)
    rows = []
    for character in new:
        place = old.find(character)
        rows.append(mean if place < 0 else table[place])
    return torch.stack(rows)


def training_hours(parameters, tokens, cards, peak, mfu):
    """The hours that a training takes, a float. peak: operations a second of one card; mfu: the share of it, 0 to 1."""
    operations = 6 * parameters * tokens
    return operations / (cards * peak * mfu) / 3600


def stack_heads(queries, keys, values):
    """Three lists of H matrices (head_size, C), one for each head -> the weight of qkv, (3 * H * head_size, C)."""
    return torch.cat([*queries, *keys, *values])
