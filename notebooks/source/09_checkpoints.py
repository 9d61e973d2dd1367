# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 09 · Checkpoints: as if nothing had happened
#
# > Checkpoints: safe, atomic, and resumed exactly.
#
# You will build: `save_checkpoint` and `load_checkpoint`, which let a killed run go on to the same last bit; and `save_model` and `load_model`, for a model that only has to write texts.
# Lessons 09 to 13 are for people who want to train something of their own, for hours or on several devices. If you only want to understand the model, go on to [lesson 14](14_tokenizers.ipynb).
# You need lesson 06. On two CPU cores the page takes less than half a minute. It uses no graphics card, because only the CPU repeats a run to the last bit.
#
# Runs die. The battery is empty, the free session is over, somebody trips over the cable. What does a run have to save, so that nobody can tell afterwards that it died? This is the whole list; the page takes the lines away one after the other, and looks at what happens:
#
# | a checkpoint holds | in the file | without it |
# |---|---|---|
# | the weights | `model.safetensors` | everything is lost |
# | the model's settings | `config.json` | nobody knows which weight goes where |
# | the tokenizer | `tokenizer.json` | an id no longer has a character |
# | the optimizer's state: moments and step counts | `state.pt` | every parameter jumps at the restart |
# | the states of the random generators | `state.pt` | other batches, other dropout |
# | how many steps are done | `state.pt` | the schedule and the data begin again |

# %%
import copy
import inspect
import json
import os
import pickle
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

# %%
import matplotlib.pyplot as plt
import torch
from safetensors.torch import save_file

from chargpt_lib.data import CharTokenizer, get_batch, load_corpus
from chargpt_lib.exercises import NotAttempted, check, progress
from chargpt_lib.gpt import GPT, GPTConfig
from chargpt_lib.plots import show
from chargpt_lib.training import lr_multiplier

# %%
CORPUS = "playhouse"  # or "shakespeare", "oz", the path of a text of yours
corpus = load_corpus(CORPUS)

# %% [markdown]
# ## A run, and its end
#
# We train a small GPT with dropout, for 160 steps of AdamW with a schedule. The loop is as short as a loop can be; lesson 11 builds the real one.

# %%
tokenizer = CharTokenizer.from_text(corpus.train + corpus.val)
ids = tokenizer.encode(corpus.train[:200_000])
STEPS, KILLED, LR = 160, 80, 5e-3
config = GPTConfig(tokenizer.vocab_size, block_size=64, n_layer=2, n_head=4, n_embd=64, dropout=0.1)


def start():
    """Makes what a program has when it starts: model, optimizer, and a generator for the batches."""
    torch.manual_seed(1337)
    model = GPT(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, betas=(0.9, 0.99))
    return model, optimizer, torch.Generator().manual_seed(1337)

# %%
def train(model, optimizer, generator, first, last):
    """Steps first to last - 1 -> their losses."""
    losses = []
    model.train()
    for step in range(first, last):
        optimizer.param_groups[0]["lr"] = LR * lr_multiplier(step, STEPS)
        x, y = get_batch(ids, model.block_size, 16, generator)
        optimizer.zero_grad()
        _, loss = model(x, y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses

# %% [markdown]
# First train without an accident. Then train once more, to see whether the computer repeats itself at all.

# %%
run = start()
whole = train(*run, 0, STEPS)
again = train(*start(), 0, STEPS)
print(f"{STEPS} losses, from ≈ {whole[0]:.2f} down to ≈ {whole[-1]:.2f} nats per character")
print("losses that differ in a second run:", sum(a != b for a, b in zip(whole, again)))
assert whole == again
assert whole[0] - whole[-1] > 0.5

# %%
fig, ax = plt.subplots(figsize=(7, 2.2), layout="constrained")
ax.plot(whole, color="#0072B2", label="the run without an accident")
ax.axvline(KILLED, color="#D55E00", linestyle="--", label="where the next run will die")
ax.set(xlabel="step", ylabel="nats per character")
ax.legend(frameon=False)
show(
    fig,
    "The loss falls from 4 to about 2 nats in 160 steps; a dashed line marks where the next run dies.",
)

# %% [markdown]
# The computer repeats itself: the same program with the same seeds gives the same numbers. Now comes the accident. A third run dies after step 79. Just before, it saved its weights, the optimizer's state, and the states of its random generators. (For now it keeps them in memory; files come later on this page.) The `state_dict` of a module or an optimizer is a dict of all the tensors that it holds; `load_state_dict` puts them back.

# %%
model, optimizer, generator = start()
before = train(model, optimizer, generator, 0, KILLED)
saved = copy.deepcopy({"weights": model.state_dict(), "optimizer": optimizer.state_dict()})
saved["torch"] = torch.get_rng_state()
saved["generator"] = generator.get_state()
print("AdamW keeps for each parameter:", ", ".join(saved["optimizer"]["state"][0]))

# %% [markdown]
# AdamW remembers how many steps it has made, a running mean of each gradient (`exp_avg`), and one of its square (`exp_avg_sq`): the two *moments*. The weights do not show them.
#
# ## With the weights alone
#
# The program starts anew, puts the weights back, and goes on at step 80, with the schedule where it was. **Predict:** is the loss at step 80 what it was without the accident? And at step 81?

# %%
model, optimizer, generator = start()
model.load_state_dict(saved["weights"])
weights_alone = train(model, optimizer, generator, KILLED, STEPS)
jump = weights_alone[1] - whole[KILLED + 1]
print(f"step 80: loss ≈ {weights_alone[0]:.4f}, without the accident ≈ {whole[KILLED]:.4f}")
print(f"step 81: loss ≈ {weights_alone[1]:.4f}, without the accident ≈ {whole[KILLED + 1]:.4f}")
print(f"step 81 is worse by ≈ {jump:.2f}")
assert weights_alone[0] - whole[KILLED] < 0.3 or corpus.name != "playhouse"

# %% [markdown]
# The weights are restored, so step 80 begins well. (Its loss is not quite the same; we come to the reason soon.) Then AdamW takes its step: the mean gradient divided by the root of the mean square. After a single gradient, both means (with Adam's correction for the first steps, lesson 02's last exercise) are made of this gradient alone, so the quotient is $g / \sqrt{g^2} = \pm 1$. So nearly every parameter moves by the whole learning rate, however small its gradient is. (The very first step of a training is like that, too. But there lesson 02's `lr_multiplier` makes the rate tiny, and at step 80 the rate is near its peak.) How far do the parameters move in step 80, with the moments and without?

# %%
def moves(moments):
    """The distance that each parameter moves in step 80, in learning rates: (P,)."""
    model, optimizer, generator = start()
    model.load_state_dict(saved["weights"])
    if moments:
        optimizer.load_state_dict(copy.deepcopy(saved["optimizer"]))
    train(model, optimizer, generator, KILLED, KILLED + 1)
    pairs = zip(model.state_dict().values(), saved["weights"].values())
    distances = torch.cat([(new - old).abs().flatten() for new, old in pairs])
    return distances / optimizer.param_groups[0]["lr"]

# %%
without, with_them = ((moves(moments) > 0.9).float().mean().item() for moments in (False, True))
print("parameters that move by 0.9 learning rates or more:")
print(f"without moments ≈ {without:.2%}")
print(f"with moments    ≈ {with_them:.2%}")
assert without > 0.95
assert with_them < 0.1

# %% [markdown]
# How much worse the loss gets differs from run to run. But in every run nearly all parameters jump at once.
#
# And something else went wrong, in silence:

# %%
def batches_from(generator, n):
    return torch.stack([get_batch(ids, 64, 16, generator)[0] for _ in range(n)])


first = batches_from(torch.Generator().manual_seed(1337), STEPS)  # the run without an accident
second = batches_from(start()[2], STEPS - KILLED)  # the restarted run
steps = [next(step for step in range(STEPS) if torch.equal(batch, first[step])) for batch in second]
print("from step 80 on the run should read the batches of steps 80 81 82 ... 159")
print("it reads the batches of steps", *steps[:3], "...", steps[-1])
assert torch.equal(second, first[:KILLED])

# %% [markdown]
# The new generator begins with the same seed. So the restarted run reads the batches of the first half a second time, and never those of the second half.
#
# ## With the optimizer

# %%
model, optimizer, generator = start()
model.load_state_dict(saved["weights"])
optimizer.load_state_dict(copy.deepcopy(saved["optimizer"]))  # a copy: AdamW writes into it
with_optimizer = train(model, optimizer, generator, KILLED, STEPS)
jump = with_optimizer[1] - whole[KILLED + 1]
print(f"step 81: loss ≈ {with_optimizer[1]:.4f}, without the accident ≈ {whole[KILLED + 1]:.4f}")
worse = sum(alone > other for alone, other in zip(weights_alone[1:11], with_optimizer[1:11])) / 10
print(f"steps 81 to 90 in which the run with the weights alone is worse: ≈ {worse:.0%}")
different = sum(a != b for a, b in zip(with_optimizer, whole[KILLED:]))
print("losses that differ:", different, "of", STEPS - KILLED)
assert jump < 0.4 or corpus.name != "playhouse"
assert worse > 0.4 or corpus.name != "playhouse"
assert with_optimizer != whole[KILLED:]

# %% [markdown]
# The jump is gone, and still it is another run: other batches, other dropout. Often that is good enough. It is not good enough if you want to find out why step 61,000 went wrong: that step would never come again.
#
# ## With the random generators
#
# A program has more random generators than one thinks. Torch has one on each device (dropout draws from these), Python and numpy have one each, and we made one more for the batches.

# %%
#| export
import os
import random
import re
import shutil
from dataclasses import asdict
from importlib import import_module
from pathlib import Path

import numpy
import torch
from safetensors.torch import load_file
from safetensors.torch import save_model as save_weights

from chargpt_lib.checks import (
    ADVICE,
    check_is_folder,
    check_loadable,
    check_no_weight_is_missing,
    check_same_model,
    check_saved_model,
    check_weights,
    corrupt_file,
    missing_checkpoint,
    read_config,
    read_pointers,
    unreadable_state,
)
from chargpt_lib.data import load_tokenizer
from chargpt_lib.devices import meta_device
from chargpt_lib.files import atomic_write, sync_folder, write_json

# %%
#| export
def get_rng_states(*generators):
    """The states of all random generators as a dict: torch's on each device, Python's, numpy's, and the given ones."""
    name, numbers, *rest = numpy.random.get_state()
    states = {
        "torch": torch.get_rng_state(),
        "python": random.getstate(),
        "numpy": [name, numbers.tolist(), *rest],  # a list, because loading an array runs code
        "generators": [generator.get_state() for generator in generators],
    }
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state_all()
    if torch.backends.mps.is_available():
        states["mps"] = torch.mps.get_rng_state()
    return states


def set_rng_states(states, *generators):
    """Puts every random generator back into its saved state, except those of devices that this computer lacks.

    generators: those that were passed to `get_rng_states`, in the same order. Raises: ValueError for another number of
    them.
    """
    if len(generators) != len(states["generators"]):
        raise ValueError(
            f"{len(states['generators'])} generators were saved, and {len(generators)} are given: give "
            f"all that get_rng_states was given, in the same order"
        )
    for generator, state in zip(generators, states["generators"]):
        generator.set_state(state)
    torch.set_rng_state(states["torch"])
    random.setstate(states["python"])
    numpy.random.set_state(states["numpy"])
    # A run may resume on a computer with fewer cards, or with none.
    for device, state in enumerate(states.get("cuda", [])[: torch.cuda.device_count()]):
        torch.cuda.set_rng_state(state, device)
    if "mps" in states and torch.backends.mps.is_available():
        torch.mps.set_rng_state(states["mps"])

# %%
def draw(generator):
    return [random.random(), torch.rand(1).item(), torch.rand(1, generator=generator).item()]


generator = torch.Generator().manual_seed(1)
states = get_rng_states(generator)
drawn = draw(generator)
set_rng_states(states, generator)
again = draw(generator)
print("drawn:    ", *(f"≈ {number:.4f}" for number in drawn))
print("and again:", *(f"≈ {number:.4f}" for number in again))
print("numbers that differ in any bit:", sum(a != b for a, b in zip(drawn, again)))
print("saved:", *sorted(set(states) - {"cuda", "mps"}))
assert drawn == again

# %% [markdown]
# Nothing in this run draws from Python's generator or numpy's, so torch's and our own are enough. Keep one rule: restore the generators last, because building a model draws from them. **Predict:** how close will the resumed run be to the run without an accident?

# %%
model, optimizer, generator = start()
model.load_state_dict(saved["weights"])
optimizer.load_state_dict(copy.deepcopy(saved["optimizer"]))
torch.set_rng_state(saved["torch"])
generator.set_state(saved["generator"])
with_generators = train(model, optimizer, generator, KILLED, STEPS)
different = sum(a != b for a, b in zip(with_generators, whole[KILLED:]))
print("losses that differ:", different, "of", STEPS - KILLED)
other = sum((a != b).sum().item() for a, b in zip(model.parameters(), run[0].parameters()))
print(f"weights that differ: {other} of {model.num_params():,}")
assert with_generators == whole[KILLED:] and other == 0

# %%
runs = (
    ("weights alone", weights_alone, "#D55E00", "-"),
    ("with the optimizer", with_optimizer, "#E69F00", "-"),
    ("with the generators", with_generators, "#0072B2", "--"),
)
fig, (left, right) = plt.subplots(1, 2, figsize=(10, 3.2), layout="constrained")
left.plot(whole, color="#BBBBBB", linewidth=5, label="without an accident")
for name, losses, colour, line in runs:
    left.plot(range(KILLED, STEPS), losses, line, color=colour, label=name)
    distance = [abs(a - b) for a, b in zip(losses, whole[KILLED:])]
    right.plot(range(KILLED, STEPS), distance, line, color=colour, label=name)
left.set(xlabel="step", ylabel="nats per character", title="A restart at step 80", xlim=(40, STEPS))
left.set_ylim(min(whole) - 0.1, max(whole[40:] + weights_alone) + 0.1)
right.set(xlabel="step", title="Distance from the run without an accident, in nats")
left.legend(frameon=False, fontsize=8)
show(
    fig,
    "Left: losses of four runs from step 40 on. The run restarted from the weights alone jumps up after step 80; "
    "the dashed line of the run with the generators lies on the line without an accident. Right: the distance of "
    "the three restarted runs from it; the dashed line is at zero everywhere, the other two are not.",
)

# %% [markdown]
# Zero. Not small: zero. The list at the top is complete.
#
# (On a graphics card the order in which some sums are added changes from time to time, so two runs differ in the last bits, accident or not.)
#
# If batches are drawn at random, as here, the run need only save the generator. If data is read in order, the run must also save its place, and there is a classic way to get that wrong.
#
# ### Exercise: skipped in silence
# ★★ · 8 minutes · A run that is resumed at the wrong place of an epoch shows no error, and its model has never seen some of the text.
#
# An *epoch* reads each of n windows once, in its own order: row `e` of `orders` is the order of epoch `e`. It takes `batch_size` windows at a time; the last batch of an epoch is smaller if n is no multiple of `batch_size`, and no batch reaches into the next epoch. After `step` batches the run died. The function below returns what the run reads after it is resumed:

# %%
def resumed(orders, batch_size, step):
    epochs, n = orders.shape
    epoch, place = step * batch_size // n, step * batch_size % n
    return orders.flatten()[epoch * n + place :]


orders = torch.stack(
    [torch.randperm(10, generator=torch.Generator().manual_seed(e)) for e in range(2)]
)
# Steps 0 to 2 are the first epoch.
read = torch.cat([orders[0], resumed(orders, batch_size=4, step=3)])
print("how often each window was read:", torch.bincount(read).tolist())

# %% [markdown]
# Three batches, of 4, 4 and 2 windows, are one epoch of 10. Then the run died, and another epoch should have followed, which reads each window once more, so that each count is 2. Write the function without its mistake. (After one more step, `step=4`, everything from place 4 of row 1 on is still to be read.) Return the rest of the epoch, and all epochs after it, in one piece; after the last batch of the last epoch nothing is left.

# %% tags=["exercise"] exercise="resumed_windows"
def resumed_windows(orders, batch_size, step):
    """orders (E, n) int64, step: batches that have been read -> (M,) int64: all that is still to be read, in order."""
    ### BEGIN SOLUTION
    n = orders.shape[1]
    epoch, batch = divmod(step, -(-n // batch_size))
    return orders.flatten()[epoch * n + batch * batch_size :]
    ### END SOLUTION

# %%
check("resumed_windows", resumed_windows)

# %% [markdown]
# ## Why pickle is unsafe
#
# So far everything stayed in memory. Now it has to go to a disk, and come back. Python's own way is `pickle`. A pickle is a little program: it says which functions to call, with which arguments, to build the object again. It may call any function.

# %%
class Weights:
    def __reduce__(
        self,
    ):  # tells pickle how to rebuild this object: which function, which arguments
        return print, ("I am in. I could have deleted your files.",)


gift = pickle.dumps(Weights())
pickle.loads(gift)

# %% [markdown]
# We did not call `print`; loading did. For many years people handed models around like this, and `torch.load` called whatever the file asked for. With `weights_only=True` it accepts only a short list of harmless things (tensors, numbers, texts, lists, dicts) and refuses the rest:

# %%
folder = Path(tempfile.mkdtemp())
torch.save({"weights": Weights()}, folder / "gift.pt")
try:
    torch.load(folder / "gift.pt", weights_only=True)
except pickle.UnpicklingError as error:
    print("refused:", re.search(r"GLOBAL \w+", str(error))[0])
torch.save({"moments": torch.ones(2), "step": 40}, folder / "state.pt")
print(torch.load(folder / "state.pt", weights_only=True))

# %% [markdown]
# For weights that others will load there is a format with no program in it at all: **safetensors**. Eight bytes say how long the header is (a whole number, the least significant byte first). The header is JSON. The rest is numbers.

# %%
toy = {"table": torch.arange(6.0).view(2, 3), "ids": torch.tensor([7, 8])}
save_file(toy, folder / "toy.safetensors")
data = (folder / "toy.safetensors").read_bytes()
length = int.from_bytes(data[:8], "little")
print(list(data[:8]), "->", length)
for name, entry in json.loads(data[8 : 8 + length]).items():
    print(f"{name:6}", entry)
print("after the header:", len(data) - 8 - length, "bytes")

# %% [markdown]
# `data_offsets` say where each tensor begins and ends, in bytes, counted from the end of the header: two ids of eight bytes each, then six numbers of four. That is the whole format. You can write a reader for it in any language, in an evening, or now:
#
# ### Exercise: by hand
# ★★ · 9 minutes · A reader of ten lines has no room to hide a program in. (Safetensors' own reader is longer, because it also refuses headers that lie.)
#
# Return the tensor of the given name from a safetensors file, in its shape. The dtypes that occur are `F32`, `F64` and `I64`: `torch.float32`, `torch.float64`, `torch.int64`. The header may hold an entry `__metadata__`, which is no tensor.
#
# `bytes(data.tolist())` turns a tensor of bytes into Python's `bytes`, and `torch.frombuffer(bytearray(some_bytes), dtype=torch.float32)` turns bytes into numbers. (`frombuffer` needs at least one byte; every tensor here has some.)

# %% tags=["exercise"] exercise="safetensors_tensor"
import json


def safetensors_tensor(data, name):
    """data (n,) uint8: the bytes of a safetensors file -> the tensor of this name, in its shape and dtype."""
    ### BEGIN SOLUTION
    file = bytes(data.tolist())
    start = 8 + int.from_bytes(file[:8], "little")
    entry = json.loads(file[8:start])[name]
    dtype = {"F32": torch.float32, "F64": torch.float64, "I64": torch.int64}[entry["dtype"]]
    a, b = entry["data_offsets"]
    return torch.frombuffer(bytearray(file[start + a : start + b]), dtype=dtype).view(
        entry["shape"]
    )
    ### END SOLUTION

# %%
check("safetensors_tensor", safetensors_tensor)

# %% [markdown]
# A model has one trap of its own: a tied table is one matrix with two names.

# %%
try:
    save_file(model.state_dict(), folder / "model.safetensors")
except RuntimeError as error:
    print(str(error).strip().split(",")[0])

# %% [markdown]
# `safetensors.torch.save_model` writes such a matrix once, and notes the other name in the header. We shall use this function.
#
# ## Atomic writes
#
# Writing takes time, and meanwhile somebody may pull the plug. Suppose the run overwrites its last file, and dies two thirds of the way through:

# %%
path = folder / "last.json"
path.write_text(json.dumps({"step": 30, "loss": 2.81}))
new = json.dumps({"step": 40, "loss": 2.66})
path.write_text(new[: 2 * len(new) // 3])  # here the power fails
print("on the disk:", path.read_text())
try:
    print(json.loads(path.read_text()))
except ValueError as error:
    print("step 40 cannot be read:", type(error).__name__)

# %% [markdown]
# Step 40 was not written, and step 30 is gone as well. So never write over the only good file. Write a new file next to it, under another name. When the new file is complete, give it the old one's name: the old file disappears in the same moment. Renaming is *atomic*: a program that looks sees the old file or the new one, never half of one.
#
# There is one more danger. What a program writes stays in the system's memory for a while before it gets to the disk. If the program is killed, nothing is lost, since the system goes on; but a power cut loses it. The new name might reach the disk before the bytes do, and name an empty file. So call `fsync` before renaming: it waits until the bytes are really there.

# %%
def write_whole(path, text):
    temporary = path.with_name(path.name + ".part")
    temporary.write_text(text)
    with open(temporary, "rb+") as file:
        os.fsync(file.fileno())  # wait for the disk
    os.replace(temporary, path)  # the atomic step


write_whole(path, json.dumps({"step": 30, "loss": 2.81}))
write_whole(path, new)
print("on the disk:", path.read_text())

# %% [markdown]
# The library has this function in `chargpt_lib/files.py`, with more guards. There `atomic_write` leaves the writing to a function that you give it, so it works for tensors, too. It also waits for the new *name* (`sync_folder`), since the name stays in memory for a while as well. And when the disk is full, it removes the temporary file, and says which file was not written:

# %%
from chargpt_lib.files import atomic_write

print(inspect.getsource(atomic_write).split("try:")[1])

# %%
def dies_while_writing(temporary):
    temporary.write_text(new[: 2 * len(new) // 3])
    raise OSError("no space left on device")


try:
    atomic_write(path, dies_while_writing)
except OSError as error:
    print(str(error).replace(str(folder), "run"))
print("on the disk:", json.loads(path.read_text()))
print("temporary files left over:", len(list(folder.glob("*.part"))))

# %% [markdown]
# ## Saving a model for inference
#
# To sample, you need the first three lines of the list: the weights, the kind of model that they belong to, and the meaning of its ids (`tokenizer.json` is lesson 00's). The functions whose names begin with `check_` only ask questions and raise errors; they are in `chargpt_lib/checks.py`, and this page does without them.

# %%
#| export
POINTER_FILE = "checkpoints.json"  # in the folder of a run: see below

# torch.compile and DistributedDataParallel keep the model that they wrap in these attributes. The names of the weights
# then begin with them: _orig_mod.lm_head.weight.
WRAPPERS = ("_orig_mod", "module")

# The kinds of models that can be saved: "model_type" in config.json -> the module, the class of the config, the class
# of the model. A later lesson's module is imported when one of its models is saved or loaded.
MODEL_TYPES = {
    "gpt": ("chargpt_lib.gpt", "GPTConfig", "GPT"),
    "modern": ("chargpt_lib.modern", "ModernConfig", "ModernGPT"),
}


def model_classes(model_type):
    """The classes of the config and of the model that belong to one of MODEL_TYPES."""
    module_name, config_name, model_name = MODEL_TYPES[model_type]
    module = import_module(module_name)
    return getattr(module, config_name), getattr(module, model_name)


def build_model(config):
    """The model that a config describes, with its initial weights."""
    _, model_class = model_classes(config.model_type)
    return model_class(config)


def build_meta_model(config):
    """The model that a config describes, on the device meta: its weights have names and shapes, and no numbers."""
    with meta_device():
        return build_model(config)


def unwrap(model):
    """The model inside the wrappers of torch.compile and of several processes; an unwrapped model itself."""
    for wrapper in (*WRAPPERS, *WRAPPERS):
        model = getattr(model, wrapper, model)
    return model


def model_spec(model, tokenizer):
    """All that is needed to build both again -> the settings of the model and those of the tokenizer: dicts.

    Raises: ValueError for a model of none of the MODEL_TYPES or with a weight missing, and for a tokenizer with another
    vocabulary than the model.
    """
    check_saved_model(model, tokenizer, MODEL_TYPES)
    check_no_weight_is_missing(model, build_meta_model(model.config).state_dict().keys())
    return {"model_type": model.config.model_type, **asdict(model.config)}, tokenizer.to_dict()


def save_model(model, tokenizer, folder):
    """Writes the files that sampling needs: config.json, tokenizer.json, model.safetensors.

    An older model in the same folder is replaced.

    Raises: ValueError for a model that could not be built again, FileExistsError for the folder of a run, OSError where
    a file cannot be written.
    """
    folder = Path(folder)
    if (folder / POINTER_FILE).exists():
        raise FileExistsError(
            f"{folder} has the checkpoints of a run, which load_model would no longer find: choose "
            f"another folder"
        )
    model = unwrap(model)
    config, _ = model_spec(model, tokenizer)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "config.json", config)
    tokenizer.save(folder / "tokenizer.json")
    atomic_write(folder / "model.safetensors", lambda path: save_weights(model, str(path)))

# %%
save_model(model, tokenizer, folder / "mine")
print((folder / "mine" / "config.json").read_text())
print(*sorted(path.name for path in (folder / "mine").iterdir()))

# %% [markdown]
# Reading needs more care. A file may come from a stranger, or from a download that broke off, or be the wrong one. The program should say what is wrong, with the file's name, before it overwrites anything, or builds anything huge. Is this JSON? Are these the settings of a GPT? Does the tokenizer fit them? `read_config` in `chargpt_lib/checks.py` asks one question a line; here is what remains:

# %%
#| export
def read_config_and_tokenizer(folder):
    """The config and the tokenizer of a saved model. Raises: ValueError where one is missing or they do not fit."""
    path = folder / "config.json"
    config = read_config(path, MODEL_TYPES, lambda model_type: model_classes(model_type)[0])
    try:
        tokenizer = load_tokenizer(folder)
    except (OSError, ValueError) as error:  # both name the file
        raise ValueError(f"{error}. {ADVICE}") from None
    if tokenizer.vocab_size != config.vocab_size:
        why = f"vocab_size is {config.vocab_size}, but the tokenizer's is {tokenizer.vocab_size}"
        raise corrupt_file(path, why)
    return config, tokenizer

# %%
#| export
def without_wrappers(name):
    """The name of a weight in the unwrapped model."""
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)


def load_weights(model, path):
    """Loads a safetensors file into the model; the file may come from a compiled or DDP-wrapped model.

    Raises: ValueError where a name, a shape or a dtype does not fit; the model is then unchanged.
    """
    try:
        saved = load_file(path)
    except Exception as error:  # a hostile header has many ways to fail
        raise corrupt_file(path, error) from None
    saved = {without_wrappers(name): weight for name, weight in saved.items()}
    check_weights(path, saved, model.state_dict())
    # strict=False, because the second name of a tied matrix is not in the file; check_weights has compared all else.
    model.load_state_dict(saved, strict=False)

# %% [markdown]
# `check_weights` compares every name, shape and dtype before `load_weights` changes a number. (A number of 16 bits may be read into one of 32 bits; the reverse would lose digits, and is refused.) A config may be wrong, too: with `"n_layer": 1000000000`, Python would build blocks until the memory is full. So `load_model` refuses a config that promises more parameters than the file has bytes.
#
# A folder may be a saved model, a checkpoint (which holds the same three files), or a run with several checkpoints. In a run, `checkpoints.json` says which checkpoint is the last and which is the best.

# %%
#| export
CHECKPOINT_NAME = r"step-(\d{8,})(-again)*"  # eight digits so that names sort by step; a run of 10^8 steps has more


def checkpoint_step(folder):
    """The number of steps in the name of a checkpoint's folder. Raises: ValueError for another name."""
    match = re.fullmatch(CHECKPOINT_NAME, Path(folder).name)
    if match is None:
        raise ValueError(
            f"{folder} is not a checkpoint folder (expected a name like step-00000100)"
        )
    return int(match[1])


def _read_pointers(out):
    """The names of a run's checkpoints, {"last": ..., "best": ...}; {} for a run without a checkpoint."""
    return read_pointers(out / POINTER_FILE, CHECKPOINT_NAME)


def find_checkpoint(out, which=None):
    """The folder of a run's "last" or "best" checkpoint; which=None: the best if there is one, else the last.

    Raises: FileNotFoundError where there is none.
    """
    out = Path(out)
    check_is_folder(out)
    if (out / "state.pt").is_file():
        return out  # the folder is a checkpoint itself, whatever its name is
    names = _read_pointers(out)
    if which is None:
        which = "best" if "best" in names else "last"
    if which not in names or not (out / names[which]).is_dir():
        raise missing_checkpoint(out, which)
    return out / names[which]

# %%
#| export
def load_model(folder, device="cpu"):
    """Loads a saved model, a checkpoint, or a run (its best checkpoint, else its last) -> model, ready to sample, tokenizer.

    No random generator changes. Raises: ValueError for files that do not fit, FileNotFoundError where there is no model.
    """
    folder = Path(folder)
    if not (folder / "config.json").is_file():
        folder = find_checkpoint(folder)
    config, tokenizer = read_config_and_tokenizer(folder)
    path = folder / "model.safetensors"
    # A weight has at least one byte. This comes before the model is built, because a false config may ask for a huge one.
    least = config.min_parameters()
    if path.is_file() and path.stat().st_size < least:
        raise corrupt_file(
            path, f"it is too short for the {least:,} parameters that config.json asks for"
        )
    with torch.random.fork_rng(devices=[]):  # the model's initial weights are drawn and thrown away
        model = build_model(config)
    load_weights(model, path)
    return model.to(device).eval(), tokenizer

# %%
copied, copied_tokenizer = load_model(folder / "mine")
text = tokenizer.encode(corpus.val[:60])[None]
difference = (copied(text)[0] - model.eval()(text)[0]).abs().max().item()
print("largest difference of the logits:", difference)
same = sum(
    copied_tokenizer.decode([i]) == tokenizer.decode([i]) for i in range(tokenizer.vocab_size)
)
print(f"ids with the same character: {same} of {tokenizer.vocab_size}")

# %%
config_file = folder / "mine" / "config.json"
good = config_file.read_text()
for bad in ('"n_layer": 3', '"n_layer": 1000000000', '"n_layer": "two"'):
    config_file.write_text(good.replace('"n_layer": 2', bad))
    try:
        load_model(folder / "mine")
    except ValueError as error:
        print("-", str(error).replace(str(folder), "run").split(". Copy")[0])
_ = config_file.write_text(good)

# %% [markdown]
# The model that comes with the course (lesson 06) is in such a folder, with 16 bits for each weight, beside the record of its training. So `load_model` opens it, too. (Its tokenizer is in `alphabet.json`, the older form; `load_tokenizer` reads both.)

# %%
from chargpt_lib.files import bundled_dir

shipped = bundled_dir() / "models" / "playhouse"
print(*sorted(path.name for path in shipped.iterdir()), sep="\n")
print(f"{load_model(shipped)[0].num_params():,} parameters")

# %% [markdown]
# ## The checkpoint
#
# A checkpoint is these three files and `state.pt`, which holds the rest of the list, in plain values and tensors. The order of the steps matters:
#
# 1. Write all four files in a folder with a temporary name, `step-00000040.part`, and wait for the disk.
# 2. Rename the folder, and wait for the disk.
# 3. Make `checkpoints.json` point to the folder, atomically.
# 4. Only now delete the checkpoints that nothing points to.
#
# Whenever the power fails, the pointer names a whole folder: the old one until 3, the new one from then on. A half-written folder is called `.part`, and the next save removes it. If the run dies between 2 and 3, it leaves a whole folder that nothing points to. A folder cannot be renamed over another one that is not empty. So when that step is saved again, its folder is called `-again`, and 4 removes the first. (A symbolic link would make a shorter pointer; Windows and many network disks have none.)

# %%
#| export
def save_checkpoint(out, model, tokenizer, state, step, best=False):
    """Saves a run after `step` steps as its last checkpoint, with best=True as its best one, too -> its folder.

    out: the run's own folder, in which all checkpoints except the last and the best are deleted. state: a dict of plain
    values, tensors and state_dicts.

    Raises: ValueError for a state that load_checkpoint would refuse, OSError where the disk refuses; older checkpoints
    then stay as they were.
    """
    if step < 0:
        raise ValueError(f"step is {step}; it counts the steps done, from 0")
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    names = _read_pointers(out)
    for left in out.glob("step-*.part"):  # left by a run that was killed while it saved
        shutil.rmtree(left, ignore_errors=True)
    name = f"step-{step:08d}"
    while (
        out / name
    ).exists():  # a second save of this step, or a run was killed before the pointer
        name += "-again"
    temporary = out / f"{name}.part"
    try:
        save_model(model, tokenizer, temporary)
        atomic_write(temporary / "state.pt", lambda path: torch.save({**state, "step": step}, path))
        # torch.save writes any object, and torch.load refuses some of them. Find out now, not after the accident.
        check_loadable(temporary / "state.pt")
        os.rename(temporary, out / name)
        sync_folder(out)
        # The folder is whole, but nothing points to it yet. The next file makes it the last checkpoint.
        names["last"] = name
        if best:
            names["best"] = name
        write_json(out / POINTER_FILE, names)
    finally:
        # After a failure the pointer still names the old checkpoint; remove the new folder.
        shutil.rmtree(temporary, ignore_errors=True)
        if name not in _read_pointers(out).values():
            shutil.rmtree(out / name, ignore_errors=True)
    # Delete old checkpoints last, and only folders with exactly such a name: others are not ours.
    for old in out.glob("step-*"):
        if re.fullmatch(CHECKPOINT_NAME, old.name) and old.name not in names.values():
            shutil.rmtree(old, ignore_errors=True)
    return out / name

# %% [markdown]
# `load_checkpoint` first compares the checkpoint with the model and the tokenizer that you give it, and names every difference.

# %%
#| export
def read_state(folder, mmap=False):
    """Reads state.pt in a checkpoint's folder -> the saved dict, with "step". mmap: tensors stay on the disk until used.

    Raises: ValueError where the file is missing or damaged, or where only unpickling could read it.
    """
    path = Path(folder) / "state.pt"
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except Exception as error:  # a hostile or broken file has many ways to fail
        raise unreadable_state(path, error) from None
    if not isinstance(state, dict) or "step" not in state:
        raise corrupt_file(path, "it does not contain a training state")
    return state


def load_checkpoint(out, model, tokenizer, which="last"):
    """Loads the weights of a run's last or best checkpoint into the model -> the saved state, with "step".

    out: the folder of the run, or of one checkpoint. Raises: ValueError where model, tokenizer or files do not fit, and
    the model stays as it was; FileNotFoundError where there is no checkpoint.
    """
    folder = find_checkpoint(Path(out), which)
    model = unwrap(model)
    saved_config, saved_tokenizer = read_config_and_tokenizer(folder)
    config, _ = model_spec(model, tokenizer)
    saved_settings = {"model_type": saved_config.model_type, **asdict(saved_config)}
    check_same_model(folder, saved_settings, saved_tokenizer, config, tokenizer)
    # The state comes before the weights, because every failure must come before the model changes.
    state = read_state(folder)
    load_weights(model, folder / "model.safetensors")
    return state

# %% [markdown]
# Now tell the whole story again, through the disk. A run saves at step 80 and is killed; another program, with other seeds, takes over. (To play this in one notebook, we delete everything and begin with other seeds.)

# %%
out = folder / "run"
model, optimizer, generator = start()
losses = train(model, optimizer, generator, 0, KILLED)
state = {"optimizer": optimizer.state_dict(), "random": get_rng_states(generator), "losses": losses}
save_checkpoint(out, model, tokenizer, state, step=KILLED)
del model, optimizer, generator, losses, state

# %%
torch.manual_seed(99)
model, generator = GPT(config), torch.Generator()
optimizer = torch.optim.AdamW(model.parameters(), lr=LR, betas=(0.9, 0.99))
state = load_checkpoint(out, model, tokenizer)
optimizer.load_state_dict(state["optimizer"])
set_rng_states(state["random"], generator)
losses = state["losses"] + train(model, optimizer, generator, state["step"], STEPS)
other = sum((a != b).sum().item() for a, b in zip(model.parameters(), run[0].parameters()))
print("losses that differ:", sum(a != b for a, b in zip(losses, whole)), "of", len(losses))
print(f"weights that differ: {other} of {model.num_params():,}")
assert losses == whole and other == 0

# %% [markdown]
# `load_checkpoint` refuses another model, another tokenizer, or a checkpoint that is not there, and gives the reason:

# %%
deep = GPT(replace(config, n_layer=3))
symbols = tokenizer.decode(range(tokenizer.vocab_size))
other = CharTokenizer(symbols[:-1] + "鵞")
for fault in (
    lambda: load_checkpoint(out, deep, tokenizer),
    lambda: load_checkpoint(out, model, other),
    lambda: load_checkpoint(out, model, tokenizer, "best"),
):
    try:
        fault()
    except (ValueError, FileNotFoundError) as error:
        print("-", str(error).replace(str(out), "run").split(". ")[0])

# %% [markdown]
# ## Crash tests
#
# A promise about accidents has to be tested by accidents. Here we start three programs that do nothing but save, and kill each at a random moment. (The tests of this course kill twenty. Killing tests the order of the steps. It does not test `fsync`, since the system outlives the killed program: to test `fsync` one would have to pull the plug. An exercise below plays that.)

# %%
SAVES = """
import itertools, sys, torch
from chargpt_lib.checkpoints import save_checkpoint
from chargpt_lib.data import CharTokenizer
from chargpt_lib.gpt import GPT, GPTConfig
model = GPT(GPTConfig(3, block_size=8, n_layer=2, n_head=2, n_embd=32))
for step in itertools.count():
    save_checkpoint(sys.argv[1], model, CharTokenizer("abc"), {"moments": torch.full((9999,), step)}, step)
    print(step, flush=True)
"""


def victim(number):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", SAVES, str(folder / f"victim {number}")],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )

# %%
small = GPT(GPTConfig(3, block_size=8, n_layer=2, n_head=2, n_embd=32))
processes = [victim(number) for number in range(3)]
for number, process in enumerate(processes):
    saved = [int(process.stdout.readline()) for _ in range(5)]
    time.sleep(random.random() / 20)
    process.kill()  # SIGKILL: no last word
    process.wait()
    saved += map(int, process.stdout.read().split())  # the steps that it reported before it died
    state = load_checkpoint(folder / f"victim {number}", small, CharTokenizer("abc"))
    foreign = (state["moments"] != state["step"]).sum().item()
    lost = max(saved[-1] - state["step"], 0)
    print(
        f"last step reported ≈ {saved[-1]}, on the disk ≈ {state['step']}; steps lost: {lost}; "
        f"moments of another step: {foreign}"
    )
    assert lost == 0 and foreign == 0

# %% [markdown]
# ## The last and the best checkpoint, and their size
#
# The last checkpoint is for resuming. The best, with the lowest validation loss, is for sampling: when a run learns its text by heart, the last is not the best. A run keeps these two, and no others.

# %%
for step, validation in ((90, 2.6), (100, 2.4), (110, 2.5), (120, 2.7)):
    save_checkpoint(out, model, tokenizer, {"validation": validation}, step, best=validation == 2.4)
    print(step, sorted(path.name for path in out.iterdir()))
best = load_checkpoint(out, model, tokenizer, "best")
print("validation loss of the best checkpoint:", best["validation"])
print("load_model loads", find_checkpoint(out).name)

# %% [markdown]
# How large is a checkpoint? **Predict:** how many times as large as the weights? Work it out first, for a general case:
#
# ### Exercise: the weight of the past
# ★ · 5 minutes · Checkpoints fill disks. When a run is over, some of these bytes may be deleted; the question is which.
#
# A model has `parameters` parameters, of which `frozen` are never trained. Each takes `weight_bytes` bytes. AdamW keeps two moments, in `moment_bytes` bytes each, for every parameter that it trains. If `master` is True, the weights have too few digits (2 bytes, say) for adding a small step, so the run keeps a second copy of every trained weight, in 4 bytes. Gradients are used up when a step is done. How many bytes are there in a checkpoint? (Leave out what is small: configs, generators, step counts.)
#
# For 10 parameters, 4 of them frozen, 2 bytes a weight, moments of 4 bytes and a master copy: 20 + 48 + 24 = 92.

# %% tags=["exercise"] exercise="checkpoint_bytes"
def checkpoint_bytes(parameters, frozen, weight_bytes, moment_bytes, master):
    """Four whole numbers, and master: bool -> int: the bytes of weights, moments and master copies together."""
    ### BEGIN SOLUTION
    trained = parameters - frozen
    return parameters * weight_bytes + trained * (2 * moment_bytes + 4 * master)
    ### END SOLUTION

# %%
check("checkpoint_bytes", checkpoint_bytes)

# %% [markdown]
# Our run trains everything, in numbers of four bytes.

# %%
state = {"optimizer": optimizer.state_dict(), "random": get_rng_states()}
last = save_checkpoint(out, model, tokenizer, state, 130)
sizes = {path.name: path.stat().st_size for path in last.iterdir()}
weights = sizes["model.safetensors"]
print(f"weights: {weights / model.num_params():.1f} bytes per parameter")
print(f"the whole checkpoint: {sum(sizes.values()) / weights:.0f} times as many bytes")

# %%
moments = {"exp_avg": 0, "exp_avg_sq": 0}
for parameter in state["optimizer"]["state"].values():
    for name in moments:
        moments[name] += parameter[name].nbytes
parts = {"weights": weights, **moments}
parts["all the rest"] = sum(sizes.values()) - sum(parts.values())
fig, ax = plt.subplots(figsize=(8, 1.9), layout="constrained")
for row, kept in (("checkpoint", parts), ("save_model", {"weights": weights})):
    left = 0
    for (name, size), colour in zip(kept.items(), ("#0072B2", "#E69F00", "#D55E00", "#CC79A7")):
        label = f"{name}: {parts[name] / 1000:.0f} kB" if row == "checkpoint" else None
        ax.barh(row, size / 1000, left=left, color=colour, label=label)
        left += size / 1000
ax.set(xlabel="kilobytes on the disk")
ax.invert_yaxis()
fig.legend(loc="outside right center", frameon=False, fontsize=9)
show(
    fig,
    "Two bars. A checkpoint has three equal parts, the weights and AdamW's two moments, and a thin slice for all the "
    "rest; what save_model writes is the first part alone.",
)

# %% [markdown]
# A checkpoint is three times as large as the weights: one part is the weights, two are the moments. When the run is over, `save_model` keeps only the first third.
#
# ## Mistakes people make
#
# - **Saving the weights alone**, and wondering about the bump in the curve at every restart.
# - **A `state_dict` kept in memory without a copy.** It holds the tensors themselves, and training goes on writing into them.
# - **Drawing from the run's generators between a save and the next step**, for a sample, say. The run that was never killed draws, the resumed one does not. Give samples their own generator.
# - **Restoring the generators first and building the model then.** Building a model draws from them.
# - **One file, written over and over.** It works until the night when it is half written.
# - **The best checkpoint only.** Then a resumed run goes back to its best step, and does the rest again.
# - **`torch.load` with `weights_only=False` on a stranger's file**, because an error message suggested it.
# - **Schedules that count from the restart.** The learning rate belongs to the step, and the step to the checkpoint.
#
# ## Exercises
#
# ### Exercise: what is left after a power cut
# ★★★ · 15 minutes · The order of write, flush and rename seems to have no reason until you have played the part of the disk yourself.
#
# You play a disk, empty at first, and the system's memory. Each file has two contents: the one that programs see (in memory), and the one on the disk. Events come in order:
#
# - `["write", name, text]`: the file of this name, new or not, has this text in memory. On the disk the file is empty, `""`: the old content is gone, and the new one is not there yet.
# - `["flush", name]`: the file's content in memory is now on the disk, too.
# - `["rename", a, b]`: file `a` is now called `b`. If there was a `b`, it is gone. The renaming happens at once, in memory and on the disk (simpler than on real disks), and does not touch the contents.
# - `["kill"]`: the program dies and starts again. The system goes on.
# - `["power"]`: the power fails and comes back. Memory is lost; programs now see the content that each file had on the disk.
#
# What do programs see at the end? Here is the careful way, and what is left if you leave out the flush:
#
# `write a.part new · flush a.part · rename a.part a · power` → `[["a", "new"]]`; without the flush, `[["a", ""]]`.
#
# The file `name` of a `flush` and the file `a` of a `rename` always exist, and `a` is not `b`.

# %% tags=["exercise"] exercise="surviving_files"
def surviving_files(events):
    """events: a list of lists of texts, as above -> [[name, content as programs see it], ...], sorted by name."""
    ### BEGIN SOLUTION
    files = {}  # name: [in memory, on the disk]
    for what, *names in events:
        if what == "write":
            files[names[0]] = [names[1], ""]
        elif what == "flush":
            files[names[0]][1] = files[names[0]][0]
        elif what == "rename":
            files[names[1]] = files.pop(names[0])
        elif what == "power":
            files = {name: [disk, disk] for name, (_, disk) in files.items()}
    return [[name, memory] for name, (memory, _) in sorted(files.items())]
    ### END SOLUTION

# %%
check("surviving_files", surviving_files)

# %% [markdown]
# Saving over the only file, `write a new · flush a`, has a moment between its two events in which neither the old content nor the new would survive. The careful way has no such moment, between any two events: go through the list with your finger.

# %% [markdown]
# How far you are:

# %%
progress()

# %% [markdown]
# ## Summary
#
# You now have `save_checkpoint`, `load_checkpoint`, `get_rng_states` and `set_rng_states`, `save_model` and `load_model`, in `chargpt_lib/checkpoints.py`. Lesson 11's trainer uses them.
#
# Next: [10 · The recipe](10_recipe.ipynb), the parts of a serious training step.
