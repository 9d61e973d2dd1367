"""The model card of an exported model: what it is, what it learned from, how good it is, who may use it."""

from chargpt_lib.data import CharTokenizer

NOT_RECORDED = "not recorded"


def _usage(folder_name, prompt):
    """The lines of Python that open the model and let it write."""
    return f"""```python
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{folder_name}")
model = AutoModelForCausalLM.from_pretrained("{folder_name}")
ids = tokenizer({prompt!r}, return_tensors="pt")
print(tokenizer.decode(model.generate(**ids, max_new_tokens=100, do_sample=True)[0]))
```"""


def _tokens(tokenizer):
    """What the tokenizer reads, in words."""
    if isinstance(tokenizer, CharTokenizer):
        return f"{tokenizer.vocab_size} characters: {tokenizer.alphabet!r}. A text with any other character is an error."
    return f"{tokenizer.vocab_size:,} tokens of byte-level byte-pair encoding."


def model_card(model, tokenizer, kind, folder_name, facts):
    """The README.md of an exported model, as a text.

    kind: the model_type in its config.json. facts: {"data": ..., "loss": ..., "license": ...}, as far as they are known.
    """
    license_name = facts.get("license")
    data = facts.get("data", NOT_RECORDED)
    loss = facts.get("loss", NOT_RECORDED)
    head = ["---", "library_name: transformers", "pipeline_tag: text-generation"]
    licence = f"{license_name}."
    if license_name is None:
        licence = "None was chosen. Before you publish the model, choose one, and put `license: ...` at the top."
    else:
        head.append(f"license: {license_name}")
    head.append("---")
    config = model.config
    prompt = tokenizer.decode([0])
    lines = [
        *head,
        "",
        f"# {folder_name}",
        "",
        f"A GPT of {model.num_params():,} parameters, trained with chargpt: {config.n_layer} layers, {config.n_head} heads, "
        f"width {config.n_embd}, {config.block_size} tokens of context. Its files are those of a `{kind}` model.",
        "",
        f"- **Data:** {data}",
        f"- **Validation loss:** {loss}",
        f"- **Vocabulary:** {_tokens(tokenizer)}",
        f"- **Licence:** {licence}",
        "",
        _usage(folder_name, prompt),
        "",
        "The model continues texts like those it was trained on. It knows nothing else, and its texts are no statements of "
        "fact.",
        "",
    ]
    return "\n".join(lines)
