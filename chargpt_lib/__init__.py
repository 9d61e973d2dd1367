"""A character-level GPT, built lesson by lesson: one module a lesson, and a little plumbing.

    from chargpt_lib import GPT, GPTConfig, load_corpus, CharTokenizer, train, generate, record_attention

Names are loaded when they are first asked for, so that `import chargpt_lib` itself does not import torch.
"""

import importlib

__version__ = "0.1.0"

# The module that each public name comes from.
_MODULE_OF = {
    "load_corpus": "data",
    "CharTokenizer": "data",
    "get_batch": "data",
    "BPETokenizer": "bpe",
    "make_tokenizer": "bpe",
    "evaluate": "training",
    "GPT": "gpt",
    "GPTConfig": "gpt",
    "load_pretrained": "gpt",
    "record_attention": "attention_maps",
    "plot_attention": "attention_maps",
    "token_texts": "attention_maps",
    "compute_attention_maps": "attention_maps",
    "attention_html": "attention_maps",
    "playground": "playground",
    "generate": "sampling",
    "prepare_for_sampling": "sampling",
    "save_model": "checkpoints",
    "load_model": "checkpoints",
    "from_pretrained": "gpt2",
    "export_transformers": "gpt2",
    "TrainConfig": "recipe",
    "train": "trainer",
    "plot_run": "trainer",
}

__all__ = sorted(_MODULE_OF)


def __getattr__(name):
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'chargpt_lib' has no attribute {name!r}")
    module = importlib.import_module(f"chargpt_lib.{_MODULE_OF[name]}")
    value = getattr(module, name)
    globals()[name] = value  # the next time, Python finds it without asking here
    return value


def __dir__():
    return sorted({*globals(), *_MODULE_OF})
