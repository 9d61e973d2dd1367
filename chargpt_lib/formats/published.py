"""The four sizes of GPT-2 that OpenAI published, and their download."""

from typing import NamedTuple

from chargpt_lib.bpe import load_gpt2_tokenizer
from chargpt_lib.files import fetch


class PublishedModel(NamedTuple):
    """A published size of GPT-2, and the sha256 of its model.safetensors in a fixed revision."""

    n_layer: int
    n_head: int
    n_embd: int
    revision: str
    sha256: str


GPT2_MODELS = {
    "gpt2": PublishedModel(
        n_layer=12,
        n_head=12,
        n_embd=768,
        revision="607a30d783dfa663caf39e06633721c8d4cfcd7e",
        sha256="248dfc3911869ec493c76e65bf2fcf7f615828b0254c12b473182f0f81d3a707",
    ),
    "gpt2-medium": PublishedModel(
        n_layer=24,
        n_head=16,
        n_embd=1024,
        revision="6dcaa7a952f72f9298047fd5137cd6e4f05f41da",
        sha256="fc5a354a19255ad494f3d71549390baca1ccf61d1d822b9408971705c687c9cd",
    ),
    "gpt2-large": PublishedModel(
        n_layer=36,
        n_head=20,
        n_embd=1280,
        revision="32b71b12589c2f8d625668d2335a01cac3249519",
        sha256="5f47f3e12f91cd33b662ce7e433b6150ad5512b5884a2cee961b50e9c3bbebce",
    ),
    "gpt2-xl": PublishedModel(
        n_layer=48,
        n_head=25,
        n_embd=1600,
        revision="15ea56dee5df4983c59b2538573817e1667135e2",
        sha256="0f8b28eb05a8075f48b61b6f35332978c74fc7763fa9fb4051a1c30511736a6a",
    ),
}


def fetch_gpt2(name):
    """One of GPT2_MODELS, downloaded once -> the folder of its weights, its config as a dict, GPT-2's tokenizer.

    Raises: OSError if a file cannot be downloaded.
    """
    published = GPT2_MODELS[name]
    # Two small files first: without a network, no large download begins.
    tokenizer = load_gpt2_tokenizer()
    site = f"https://huggingface.co/openai-community/{name}/resolve/{published.revision}"
    path = fetch(
        f"{name}/model.safetensors",
        f"{site}/model.safetensors",
        published.sha256,
        progressbar=True,
        way_out="open a folder that transformers saved",
    )
    settings = {
        "model_type": "gpt2",
        "n_layer": published.n_layer,
        "n_head": published.n_head,
        "n_embd": published.n_embd,
    }
    return path.parent, settings, tokenizer
