# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Start here: the first five minutes
#
# You will see: a GPT that learns to write plays, what it writes, where it looks, and how far it is from perfect.
# You need nothing but this page. On two CPU cores it takes about a minute and a half.
#
# Run the cells from top to bottom, each with Shift and Enter. This page only shows; from [lesson 00](00_data.ipynb) on, everything is explained, down to the last line of code.

# %% [markdown]
# ## A text
#
# A model learns from a text. A small grammar wrote this one, with random choices, so the text is nonsense. But the nonsense follows strict rules: in each scene only the people who have entered speak, and a person who is asked by name answers.

# %%
from chargpt_lib.bpe import make_tokenizer
from chargpt_lib.data import load_corpus
from chargpt_lib.devices import pick_device, pick_scale

CORPUS = "playhouse"  # or "shakespeare", "oz", the path of a text of yours
TOKENIZER = "char"  # what the model reads: characters, or "bpe:512", pieces of words (lesson 14)
CACHE_DIR = None  # or a folder that outlives the session: "/content/drive/MyDrive/chargpt", "/kaggle/working" (see RUNNING_ELSEWHERE.md)
corpus, device = load_corpus(CORPUS), pick_device()
scale = pick_scale(device)  # multiplies the batch size: 8 on a graphics card, 1 on a CPU
tokenizer = make_tokenizer(TOKENIZER, corpus)
print(f"{len(corpus.train):,} characters to learn from")
print(f"the model reads {tokenizer.vocab_size} different {tokenizer.unit}s\n")
print(corpus.train[:300])

# %% [markdown]
# ## A minute of training
#
# The model reads pieces of the text and guesses, at each character, which one comes next. After each batch of guesses the model's half a million numbers are adjusted a little, so that the guesses would have been better. The *loss* says how much the next character surprised the model, in a unit called the nat: 4 at first, when all characters seem equally likely. **Predict:** after a minute, is it nearer to 2 or to 0.5?

# %% tags=["nbval-ignore-output"]
import torch

from chargpt_lib.gpt import GPT, PLAYHOUSE, GPTConfig
from chargpt_lib.training import load_or_fit

torch.manual_seed(1337)
model = GPT(GPTConfig.cpu(tokenizer.vocab_size, **PLAYHOUSE)).to(device)
result = load_or_fit(
    "first minute",
    model,
    corpus,
    steps=1400,
    batch_size=6 * scale,
    lr=5e-3,
    cache_dir=CACHE_DIR,
    tokenizer=tokenizer,
)
print(
    f"loss {result['loss']:.2f} on text it has never seen, after {result['seconds']:.0f} s of training"
)

# %%
loss = result["loss"]
print(f"≈ {loss:.2f}: {abs(loss - 2):.1f} away from 2, {abs(loss - 0.5):.1f} away from 0.5")
assert loss < 1.0 or corpus.name != "playhouse"

# %% [markdown]
# How did the loss get there? The dashed line is the entropy of the text, called **the floor** in this course: the surprise that remains for a reader who knows the grammar, because the grammar chooses at random. No model can do better on text it has not seen.

# %%
import matplotlib.pyplot as plt

from chargpt_lib.plots import show

losses = torch.tensor(result["losses"]).unfold(0, 20, 5).mean(1)
fig, ax = plt.subplots(figsize=(8, 2.6), layout="constrained")
ax.plot(range(10, 10 + 5 * len(losses), 5), losses, color="#0072B2", label="mean of 20 batches")
if corpus.val_entropy:
    ax.axhline(corpus.val_entropy, color="#009E73", linestyle="--", label="the floor")
ax.set(xlabel="step", ylabel="loss", ylim=0, title="A minute of training")
ax.legend(frameon=False)
show(fig, "The loss falls steeply from 4, then more and more slowly, and comes close to the floor.")

# %% [markdown]
# ## A play
#
# We give the model the end of a line and let it continue, one character after the other, each drawn with the model's probabilities. After so short a training it does not know all the rules yet. **Look for** a word that does not exist, or somebody who speaks without having entered.

# %% tags=["nbval-ignore-output"]
start = tokenizer.encode("\n")[None].to(device)
play = tokenizer.decode(
    model.generate(start, 300, torch.Generator(device).manual_seed(1337))[0].cpu()
)
print(play.strip())

# %%
assert len(play) == 301 or TOKENIZER != "char"

# %% [markdown]
# ## Where it looks
#
# The first line of a scene has ended. The next speaker must be one of the two people who have just entered. The model has 24 *heads*, six in each of four layers; each head looks back at the text in its own way, and spreads weights that add up to 1 over it. **Predict:** from the end of the line, how much of its weight does the best head give to the two names, `Meg` and `Hal`?

# %%
from chargpt_lib.attention_maps import attention_html, compute_attention_maps, token_texts

scene = "A barn. Enter Meg and Hal with a damp goose.\n"
labels = token_texts(tokenizer, scene)  # what stands at each position
maps = compute_attention_maps(model, tokenizer, scene)
weights = maps.for_text(labels)  # (layers, heads, characters that look, characters looked at)
totals = weights.sum(-1)
print(f"the weights of a character add up to between {totals.min():.4f} and {totals.max():.4f}")
begin = len(tokenizer.encode(scene[: scene.index(" Meg")]))
end = len(tokenizer.encode(scene[: scene.index(" with")]))
on_names = weights[:, :, -1, begin:end].sum(-1)  # (layers, heads): weight of the last character
layer, head = divmod(on_names.argmax().item(), on_names.shape[1])
print(f"when a speaker is due, one head gives the two names ≈ {on_names.max():.2f} of its weight")
assert on_names.max() > 0.4 or corpus.name != "playhouse"

# %% [markdown]
# The viewer opens at this head, and shows where the last character looks. Move the pointer over the text: where does the head look from other characters? Then click heads of other layers in the small table, and compare.

# %% tags=["nbval-ignore-output"]
attention_html(maps, labels, layer=layer, head=head)

# %% [markdown]
# (Do you see only a picture that does not react? Some websites remove the script from a saved notebook. Run the cell yourself.)

# %%
equal = (end - begin) / len(labels)
print(f"weight on the two names: {equal:.2f} from a head that looks at everything equally,")
print(
    f"≈ {on_names.mean():.2f} from the mean of all heads, ≈ {on_names[layer, head]:.2f} from this head"
)
assert on_names[layer, head] == on_names.max()

# %% [markdown]
# ## The ladder
#
# The course builds such a model step by step, as on a ladder: each model is a rung, and each rung removes a part of the loss that you can name. The bars below go from a table of letter pairs down to the full GPT, which was trained a little longer than your model on this page. The grey part is the floor, 0.30 nats per character. Each coloured stripe is the loss that a perfect model would not have, for one kind of text:
#
# - *spelling*: the letters inside a word; *word*: which noun, verb or adjective comes; *grammar*: the kind of line, its endings and its punctuation
# - *cast*: who enters, and with what; *addressee*: who is spoken to
# - *copied name*: a name that the scene has mentioned before, such as the next speaker; *closing*: the end of something that was begun, such as a quotation

# %%
from chargpt_lib.training import plot_ladder

show(
    plot_ladder("playhouse"),
    "Stacked bars: the losses of the models, from a table of letter pairs to the full GPT, "
    "each lower than the one before, the last one close to the floor.",
)

# %% [markdown]
# ## Your model, live
#
# The next cell makes a page in which your browser runs the model. The page begins with the line from above.
#
# - **Read.** The stronger the colour behind a character, the more that character surprised the model. Continue the text: type `Meg: O damp goose!`. Then spell a word wrong. **Predict:** does one wrong letter also make the letters after it surprising?
# - **Write.** Press *Write*, and the model continues the text. *Back to the prompt* removes what it wrote. Change the seed or the temperature, and it writes something else.
# - **Break it.** Under *Switch parts off*, press *Measure each*: each button then shows how much the loss of this text grows without that part. Switch off the part that costs most, press *Back to the prompt*, then *Write*. The broken model gives its own nonsense a low loss. Switch everything on again: how large is the loss of that nonsense now?

# %% tags=["nbval-ignore-output"]
from chargpt_lib.playground import playground

live = playground(model, tokenizer, scene, corpus.val_entropy)
live

# %% [markdown]
# `live.save("my_model.html")` writes the page to a file. It opens without a network, and you can send it to a friend. To keep the file small, each weight is rounded to 8 bits. Does the rounded model predict worse?

# %%
from chargpt_lib.playground import as_packed
from chargpt_lib.training import evaluate

some = tokenizer.encode(corpus.val[:20_000])
exact, rounded = evaluate(model, some), evaluate(as_packed(model), some)
print(f"loss on 20,000 characters: ≈ {exact:.3f}, and in 8 bits ≈ {rounded:.3f}")
assert round(rounded - exact, 2) == 0

# %% [markdown]
# ## The lessons
#
# | lesson | what you build |
# |---|---|
# | [00](00_data.ipynb) | an alphabet, a tokenizer, batches |
# | [01](01_bigram.ipynb) | a table of letter pairs that writes |
# | [02](02_training_loop.ipynb) | the loop that trains everything |
# | [03](03_single_head.ipynb), [04](04_multi_head.ipynb) | one head of attention, then many |
# | [05](05_blocks.ipynb), [06](06_full_gpt.ipynb) | blocks, then the full GPT |
# | [07](07_attention_maps.ipynb) | maps of what each head looks at, and tests of what it does |
# | [08](08_sampling.ipynb) | ways to draw the next character, and a cache that makes it fast |
# | [09](09_checkpoints.ipynb) | checkpoints: stop a training run, and continue it exactly, bit for bit |
# | [10](10_recipe.ipynb), [11](11_training_in_earnest.ipynb) | the recipe and the trainer for long runs; what is wrong with my loss? |
# | [12](12_data_on_disk.ipynb), [13](13_many_devices.ipynb) | texts larger than the memory; training on several devices at once |
# | [14](14_tokenizers.ipynb) | pieces of words: a tokenizer for every text |
# | [15](15_scaling_laws.ipynb) | a law, fitted to small models, that predicts the loss of a larger one |
# | [16](16_modern_gpt.ipynb) | the parts of today's models, each measured with and without |
# | [17](17_gpt2.ipynb) | GPT-2's weights in your model, and your models in other people's tools |
#
# You need some Python, and an evening for each lesson.
