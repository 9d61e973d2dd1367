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
# You need nothing but this page. On two CPU cores it takes about a minute and a half. (On a graphics card: not measured yet.)
#
# Run the cells from top to bottom, each with Shift and Enter. Nothing is explained here; everything is explained from [lesson 00](00_data.ipynb) on, down to the last line of code.

# %% [markdown]
# ## A text
#
# A model learns from a text. This one has been written by a small grammar with dice, so it is nonsense, but strict nonsense: in each scene only those speak who have entered, and whoever is asked by name answers.

# %%
from chargpt_lib.data import CharTokenizer, load_corpus
from chargpt_lib.devices import pick_device, pick_scale

CORPUS = "playhouse"  # or "shakespeare", "oz", the path of a text of yours
KEEP = None  # or a folder that outlives the session: "/content/drive/MyDrive/chargpt", "/kaggle/working" (see RUNNING_ELSEWHERE.md)
corpus, device = load_corpus(CORPUS), pick_device()
scale = pick_scale(device)  # so many times as many windows at once; 1 on a CPU
tokenizer = CharTokenizer.from_text(corpus.train + corpus.val)
print(f"{len(corpus.train):,} characters to learn from, {tokenizer.vocab_size} different ones\n")
print(corpus.train[:300])

# %% [markdown]
# ## A minute of training
#
# The model reads pieces of the text and guesses, at each character, which one comes next. After each guess half a million numbers are adjusted a little, so that the guess would have been better. The *loss* says how surprised it was (its unit is called the nat): 4 at first, when all characters seem alike. **Predict:** after a minute, is it nearer to 2 or to 0.5?

# %% tags=["nbval-ignore-output"]
import torch

from chargpt_lib.gpt import GPT, PLAYHOUSE, GPTConfig
from chargpt_lib.training import load_or_fit

torch.manual_seed(1337)
model = GPT(GPTConfig.cpu(tokenizer.vocab_size, **PLAYHOUSE)).to(device)
result = load_or_fit(
    "first minute", model, corpus, steps=1400, batch_size=6 * scale, lr=5e-3, keep=KEEP
)
print(
    f"loss {result['loss']:.2f} on text it has never seen, after {result['seconds']:.0f} s of training"
)

# %%
loss = result["loss"]
print(f"≈ {loss:.2f}: {abs(loss - 2):.1f} away from 2, {abs(loss - 0.5):.1f} away from 0.5")
assert loss < 1.0 or corpus.name != "playhouse"

# %% [markdown]
# Where has the loss come from? The line is the floor: what the dice themselves make unpredictable. Nobody can do better on unseen text.

# %%
import matplotlib.pyplot as plt

from chargpt_lib.plots import show

losses = torch.tensor(result["losses"]).unfold(0, 20, 5).mean(1)
fig, ax = plt.subplots(figsize=(8, 2.6), layout="constrained")
ax.plot(range(10, 10 + 5 * len(losses), 5), losses, color="#0072B2", label="mean of 20 batches")
if corpus.val_floor:
    ax.axhline(corpus.val_floor, color="#009E73", linestyle="--", label="the floor")
ax.set(xlabel="step", ylabel="loss", ylim=0, title="A minute of training")
ax.legend(frameon=False)
show(fig, "The loss falls steeply from 4, then more and more slowly, and comes close to the floor.")

# %% [markdown]
# ## A play
#
# Give it the end of a line, and let it go on: one character after the other, each drawn with the model's probabilities. After one minute it does not know all the rules yet. **Look for** a word that is none, or somebody who speaks without having entered.

# %% tags=["nbval-ignore-output"]
start = tokenizer.encode("\n")[None].to(device)
play = tokenizer.decode(
    model.generate(start, 300, torch.Generator(device).manual_seed(1337))[0].cpu()
)
print(play.strip())

# %%
assert len(play) == 301

# %% [markdown]
# ## Where it looks
#
# The first line of a scene has ended. Whoever speaks now must be one of those who have just entered. The model has 24 *heads*, six in each of four layers; each looks back at the text in its own way. The small table shows, for the last character, what each head looks at most. Find one that looks at `Meg` or at `Hal` (try the last layers first), and click it. Then move over the text: where does it look from other characters?

# %% tags=["nbval-ignore-output"]
from chargpt_lib.attention_maps import attention_html, attention_of

scene = "A barn. Enter Meg and Hal with a damp goose.\n"
attention_html(attention_of(model, tokenizer, scene), scene)

# %% [markdown]
# (Only the picture, and nothing that answers? Then the page is shown where scripts are cut out. Run the cell.)

# %%
weights = attention_of(model, tokenizer, scene).of(
    scene
)  # (layers, heads, characters that look, characters looked at)
totals = weights.sum(-1)
print(
    f"what a head gives to all characters together: from {totals.min():.4f} to {totals.max():.4f}"
)
names = slice(scene.index("Meg"), scene.index(" with")) if "Meg" in scene else slice(0, 1)
on_names = weights[:, :, -1, names].sum(-1)  # (layers, heads)
print(
    f"the head that looks most at the names gives them ≈ {on_names.max():.2f}, when the next speaker is due"
)
assert on_names.max() > 0.4 or corpus.name != "playhouse"

# %% [markdown]
# ## The ladder
#
# Such a model did not fall from the sky. The course builds it rung by rung, and each rung removes a part of the loss that you can name: spelling, grammar, then the names. From a table of letter pairs down to the full GPT, which is trained a little longer than the one above:

# %%
from chargpt_lib.training import plot_ladder

show(
    plot_ladder("playhouse"),
    "Stacked bars: the losses of five models, from a table of letter pairs to the full GPT, "
    "each lower than the one before, the last one close to the floor.",
)

# %% [markdown]
# ## Climb
#
# | lesson | what you build |
# |---|---|
# | [00](00_data.ipynb) | an alphabet, a tokenizer, batches |
# | [01](01_bigram.ipynb) | a table of letter pairs that writes |
# | [02](02_training_loop.ipynb) | the loop that trains everything |
# | [03](03_single_head.ipynb), [04](04_multi_head.ipynb) | one head of attention, then many |
# | [05](05_blocks.ipynb), [06](06_full_gpt.ipynb) | blocks, then the full GPT |
# | [07](07_attention_maps.ipynb) | what each head does, and proof |
# | [08](08_sampling.ipynb) | every way to draw the next character, and fast |
#
# You need some Python, and an evening for each.
