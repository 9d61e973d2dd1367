"""How fast byte-pair encoding learns and reads, and what it does to a model: characters against subwords, fairly.

    python -m tests.benchmarks.tokenizers speed       a minute
    python -m tests.benchmarks.tokenizers rates       20 minutes, two runs at a time
    python -m tests.benchmarks.tokenizers compare     25 minutes, two runs at a time; goes on where it was interrupted

All three write into data/results/tokenizers.json.

speed: ours, a plain trainer that counts all pairs anew for each merge, Hugging Face's tokenizers and tiktoken, in turns.
rates: the learning rate of each reader, chosen among five by a run with each on Shakespeare. The runs are validated on
the last tenth of the training text, so that no setting is chosen by the text that the comparison is measured on.
compare: on each corpus, models of the same number of parameters read characters, or tokens of 128, 512 and 2,048 merges,
for the same time of the processor, one thread and three seeds each. What they pay is told in bits per character.
"""

import json
import math
import os
import sys
import time
import tracemalloc
from collections import Counter
from contextlib import redirect_stdout
from dataclasses import replace
from functools import partial
from statistics import fmean, median
from types import SimpleNamespace

import regex
import tiktoken
import tokenizers
import torch

from build import HERE
from chargpt_lib import trainer
from chargpt_lib.bpe import PATTERNS, BPETokenizer, load_gpt2_tokenizer, make_tokenizer
from chargpt_lib.cli.options import PRESETS
from chargpt_lib.data import Corpus, load_corpus
from chargpt_lib.files import read_json, write_json
from chargpt_lib.gpt import GPT
from chargpt_lib.playhouse import choice_weights, excess_by_kind
from chargpt_lib.recipe import TrainConfig
from chargpt_lib.training import nats_by_character, per_token_loss
from tests.benchmarks.machine import measured_on, two_at_a_time

OUT = HERE.root / "data" / "results" / "tokenizers.json"
# Each reader, and the name of its tokenizer: a vocabulary has 256 bytes, and the merges.
READERS = {
    "characters": "char",
    "128 merges": "bpe:384",
    "512 merges": "bpe:768",
    "2048 merges": "bpe:2304",
}
SEEDS = (1337, 1338, 1339)
SECONDS = 115  # of training, as long as lesson 06's
RATES = (7.5e-4, 1.5e-3, 3e-3, 6e-3, 1.2e-2)
EVALUATIONS = 10  # in a run, about
# Characters of the validation text that are read in them, so that evaluating takes hardly any of a run's time.
EVALUATED = 10_000
REPEATS = 5


def timed(function, *args):
    start = time.perf_counter()
    result = function(*args)
    return time.perf_counter() - start, result


# ---------------------------------------------------------------- speed


def learn_plainly(text, num_merges):
    """Training as minBPE teaches it: the ids of the whole text, in words, counted and merged anew for each merge."""
    words = [list(word.encode("utf-8")) for word in regex.findall(PATTERNS["gpt2"], text)]
    for new in range(256, 256 + num_merges):
        pairs = Counter()
        for word in words:
            pairs.update(zip(word, word[1:]))
        best = max(pairs, key=pairs.get)
        for n, word in enumerate(words):
            merged = []
            i = 0
            while i < len(word):
                if i + 1 < len(word) and (word[i], word[i + 1]) == best:
                    merged.append(new)
                    i += 2
                else:
                    merged.append(word[i])
                    i += 1
            words[n] = merged


def learn_with_tokenizers(text, vocab_size):
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=vocab_size,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.train_from_iterator([text], trainer)


def measure_speed():
    shakespeare = load_corpus("shakespeare")
    text = shakespeare.train + shakespeare.val
    short = text[:130_000]
    rows = {"training": {}, "encoding": {}}
    for name, part, size in (("500 of 130 KB", short, 500), ("2,048 of 1.1 MB", text, 2048)):
        seconds = {"ours": [], "tokenizers": []}
        for _ in range(REPEATS):
            seconds["ours"].append(timed(BPETokenizer.train, part, size)[0])
            seconds["tokenizers"].append(timed(learn_with_tokenizers, part, size)[0])
        row = {trainer: median(values) for trainer, values in seconds.items()}
        # Once, and for the large vocabulary only its first hundred merges, the slowest: it takes minutes.
        merges = size - 256 if size == 500 else 100
        plain, _ = timed(learn_plainly, part, merges)
        row["plain, a merge"] = plain / merges
        row["ours, a merge"] = row["ours"] / (size - 256)
        row["plain / ours"] = row["plain, a merge"] / row["ours, a merge"]
        rows["training"][name] = row

    gpt2 = load_gpt2_tokenizer()
    ranks = {token: i for i, token in enumerate(gpt2.tokens[:-1])}
    theirs = tiktoken.Encoding(
        "gpt2", pat_str=PATTERNS["gpt2"], mergeable_ranks=ranks, special_tokens=gpt2.special_tokens
    )
    megabytes = len(text.encode("utf-8")) / 1e6
    seconds = {"ours": [], "tiktoken": []}
    for _ in range(REPEATS):
        seconds["ours"].append(timed(gpt2.encode, text)[0])
        seconds["tiktoken"].append(timed(theirs.encode, text)[0])
    for name, values in seconds.items():
        rows["encoding"][f"{name}, MB/s"] = megabytes / median(values)
    rows["encoding"]["encode_iterable of 5 MB, bytes above its start"] = measure_memory(gpt2, text)
    return rows


def measure_memory(tokenizer, text):
    """The most memory above its start that `encode_iterable` takes for 5 MB, in bytes."""
    lines = (text * 5)[:5_000_000].splitlines(keepends=True)
    tracemalloc.start()
    ids = tokenizer.encode_iterable(lines)
    next(ids)
    before, _ = tracemalloc.get_traced_memory()
    for _ in ids:
        pass
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak - before


# ---------------------------------------------------------------- characters against subwords


def config_of_size(vocab_size, parameters):
    """The GPTConfig of the preset cpu whose width makes it a model of about this many parameters."""
    config = PRESETS["cpu"].model(vocab_size)
    candidates = []
    for n_embd in range(config.n_head, 400, config.n_head):
        changed = replace(config, n_embd=n_embd)
        with torch.device("meta"):
            size = GPT(changed).num_params()
        candidates.append((abs(size - parameters), n_embd))
    return replace(config, n_embd=min(candidates)[1])


def steps_per_second(model, settings):
    """How many steps of a training fit into a second, from a few of them: it decides how often a run is evaluated."""
    ids = torch.randint(model.vocab_size, (10_000,))
    copy = GPT(model.config)
    result = trainer.train(copy, ids, TrainConfig(**{**settings, "time_budget": 3.0}))
    return result["steps"] / result["seconds"]


def one_run(corpus, reader, parameters, seed, rate, seconds):
    """Trains one model. Returns its row of the table, with what it paid after which time."""
    torch.set_num_threads(1)
    # The processor's time: with one thread it is the training's own, whatever else the machine does.
    trainer.time = SimpleNamespace(perf_counter=time.process_time)
    tokenizer = make_tokenizer(READERS[reader], corpus)
    torch.manual_seed(seed)
    config = config_of_size(tokenizer.vocab_size, parameters)
    model = GPT(config)
    settings = {**PRESETS["cpu"].training, "learning_rate": rate, "seed": seed}
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):  # the bars
        interval = round(steps_per_second(model, settings) * seconds / EVALUATIONS)
        settings = {**settings, "time_budget": float(seconds), "eval_interval": interval}
        shortened = Corpus(corpus.name, corpus.train, corpus.val[:EVALUATED])
        result = trainer.train(model, shortened, TrainConfig(**settings), tokenizer)
    ids = tokenizer.encode(corpus.val)
    weights = choice_weights(corpus.val_spans) if corpus.val_spans else None
    paid = nats_by_character(per_token_loss(model, ids).double(), ids, tokenizer, weights)
    predicted = [nats for nats in paid if nats is not None]
    read = result["steps"] * settings["batch_size"] * config.block_size
    characters_per_id = len(corpus.val) / len(ids)
    # Of a loss per id: all nats together, divided by the characters they are for.
    evaluated = len(tokenizer.encode(shortened.val)) / len(shortened.val) / math.log(2)
    curve = [(round(row["seconds"], 1), row["val_loss"] * evaluated) for row in result["log"]]
    return {
        "vocab_size": tokenizer.vocab_size,
        "n_embd": config.n_embd,
        "parameters": model.num_params(),
        "learning_rate": rate,
        "seed": seed,
        "seconds": result["seconds"],
        "steps": result["steps"],
        "nats_per_id": sum(predicted) / (len(ids) - 1),
        "bits": sum(predicted) / len(predicted) / math.log(2),
        "characters_per_id": characters_per_id,
        "characters_per_second": read * characters_per_id / result["seconds"],
        "context_in_characters": config.block_size * characters_per_id,
        "curve": curve,
        "excess": excess_by_kind(paid, corpus.val_spans) if corpus.val_spans else {},
    }


def parameters_of_characters(corpus):
    """The size of all models that are compared: that of the preset cpu, reading characters."""
    vocab_size = make_tokenizer("char", corpus).vocab_size
    with torch.device("meta"):
        return GPT(PRESETS["cpu"].model(vocab_size)).num_params()


def run_all(runs):
    """Makes the runs, each the arguments of `one_run`, two at a time -> (number of the run, its row), as they end."""
    return two_at_a_time([partial(one_run, *run) for run in runs])


def choose_rates(found):
    """The rate of each reader: the one with the least loss on the last tenth of Shakespeare's training text.

    found: {reader: {rate: bits per character}} of earlier runs; the others are made now, and added.
    """
    whole = load_corpus("shakespeare")
    cut = 9 * len(whole.train) // 10
    corpus = Corpus("shakespeare, its training text alone", whole.train[:cut], whole.train[cut:])
    parameters = parameters_of_characters(whole)
    tried = []
    runs = []
    for reader in READERS:
        for rate in RATES:
            if str(rate) not in found.get(reader, {}):
                tried.append((reader, rate))
                runs.append((corpus, reader, parameters, SEEDS[0], rate, SECONDS))
    for n, row in run_all(runs):
        reader, rate = tried[n]
        found.setdefault(reader, {})[str(rate)] = row["bits"]
        print(reader, rate, row["bits"], flush=True)
    chosen = {reader: float(min(row, key=row.get)) for reader, row in found.items()}
    return {"seconds": SECONDS, "bits": found, "chosen": chosen}


def compare(rates, results):
    """Makes the runs that `results` lacks, and puts them there; yields after each."""
    corpora = [load_corpus(name) for name in ("playhouse", "shakespeare")]
    places = []
    runs = []
    for seed in SEEDS:
        for corpus in corpora:
            name = corpus.name
            parameters = parameters_of_characters(corpus)
            for reader in READERS:
                done = results.setdefault(name, {}).setdefault(reader, [])
                if not any(row["seed"] == seed for row in done):
                    places.append((name, reader))
                    runs.append((corpus, reader, parameters, seed, rates[reader], SECONDS))
    for n, row in run_all(runs):
        name, reader = places[n]
        results[name][reader].append(row)
        results[name][reader].sort(key=lambda row: row["seed"])
        print(name, reader, json.dumps(row), flush=True)
        yield


def readme_table(record):
    """The table in data/results/README.md: the mean of the seeds, and how far they are apart."""
    lines = ["| reader | Playhouse | Shakespeare |", "|---|---|---|"]
    for reader in record["compare"]["playhouse"]:
        cells = []
        for name in ("playhouse", "shakespeare"):
            bits = [row["bits"] for row in record["compare"][name][reader]]
            cells.append(f"{fmean(bits):.3f} (seeds {max(bits) - min(bits):.3f} apart)")
        lines.append(f"| {reader.replace('2048', 'up to 2,048')} | {' | '.join(cells)} |")
    lines.append(f"| the floor | {record['floor']['playhouse']:.3f} | nobody knows |")
    return "\n".join(lines)


def main():
    record = read_json(OUT)
    record["machine"] = measured_on("cpu", tokenizers, tiktoken)
    if "speed" in sys.argv[1:]:
        record["speed"] = measure_speed()
        write_json(OUT, record)
        print(json.dumps(record["speed"], indent=1))
    if "rates" in sys.argv[1:]:
        earlier = record.get("rates", {}).get("bits", {})
        record["rates"] = choose_rates(earlier)
        write_json(OUT, record)
    if "compare" in sys.argv[1:]:
        playhouse = load_corpus("playhouse")
        record["floor"] = {"playhouse": playhouse.val_entropy / math.log(2)}
        for _ in compare(record["rates"]["chosen"], record.setdefault("compare", {})):
            write_json(OUT, record)
        print(readme_table(record))


if __name__ == "__main__":
    main()
