"""How fast byte-pair encoding learns and reads, and what it does to a model: characters against subwords, fairly.

    python -m tests.benchmarks.tokenizers speed       -> data/results/tokenizers.json, "speed"
    python -m tests.benchmarks.tokenizers compare     -> the same file, "compare": an hour on two cores; goes on where it
                                                         was interrupted

Speed: ours, a plain trainer that counts all pairs anew for each merge, Hugging Face's tokenizers and tiktoken, in turns.
Compare: on each corpus, models of the same number of parameters read characters, or tokens of 128, 512 and 2,048 merges,
for the same time, with three seeds each. What they pay is told in bits per character.
"""

import json
import math
import sys
import time
import tracemalloc
from collections import Counter
from dataclasses import replace
from statistics import median

import regex
import tiktoken
import tokenizers
import torch

from build import HERE
from chargpt_lib.bpe import PATTERNS, BPETokenizer, byte_characters, load_gpt2_tokenizer
from chargpt_lib.cli.options import PRESETS
from chargpt_lib.data import CharTokenizer, load_corpus
from chargpt_lib.files import read_json, write_json
from chargpt_lib.gpt import GPT
from chargpt_lib.playhouse import excess_by_kind
from chargpt_lib.recipe import TrainConfig
from chargpt_lib.trainer import train
from chargpt_lib.training import per_token_loss
from tests.benchmarks.machine import measured_on

OUT = HERE.root / "data" / "results" / "tokenizers.json"
MERGES = (128, 512, 2048)
SEEDS = (1337, 1338, 1339)
SECONDS = 115  # of training, as lesson 06's
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


def nats_by_character(model, tokenizer, ids, text):
    """What a model pays for each character of a text, a token's nats in equal shares; None where it predicts nothing."""
    nats = per_token_loss(model, ids).double().tolist()
    shares = []
    # The first token has nothing before it.
    for n, i in enumerate(ids.tolist()):
        length = len(tokenizer.decode([i]))
        shares += [None if n == 0 else nats[n - 1] / length] * length
    assert len(shares) == len(text)
    return shares


def one_run(corpus, tokenizer, parameters, seed):
    torch.manual_seed(seed)
    config = config_of_size(tokenizer.vocab_size, parameters)
    model = GPT(config)
    settings = {**PRESETS["cpu"].training, "time_budget": float(SECONDS), "seed": seed}
    result = train(model, corpus, TrainConfig(**settings), tokenizer)
    ids = tokenizer.encode(corpus.val)
    paid = nats_by_character(model, tokenizer, ids, corpus.val)
    predicted = [nats for nats in paid if nats is not None]
    read = result["steps"] * settings["batch_size"] * config.block_size
    characters_per_id = len(corpus.val) / len(ids)
    return {
        "vocab_size": tokenizer.vocab_size,
        "n_embd": config.n_embd,
        "parameters": model.num_params(),
        "seed": seed,
        "steps": result["steps"],
        "bits_per_character": sum(predicted) / len(predicted) / math.log(2),
        "characters_per_id": characters_per_id,
        "characters_per_second": read * characters_per_id / result["seconds"],
        "context_in_characters": config.block_size * characters_per_id,
        "excess": excess_by_kind(paid, corpus.val_spans) if corpus.val_spans else {},
    }


def compare(results):
    for name in ("playhouse", "shakespeare"):
        corpus = load_corpus(name)
        characters = CharTokenizer.from_text(corpus.train + corpus.val)
        with torch.device("meta"):
            parameters = GPT(PRESETS["cpu"].model(characters.vocab_size)).num_params()
        readers = {"characters": characters}
        for merges in MERGES:
            readers[f"{merges} merges"] = BPETokenizer.train(corpus.train, 256 + merges)
        for seed in SEEDS:
            for reader, tokenizer in readers.items():
                done = results.setdefault(name, {}).setdefault(reader, [])
                if any(row["seed"] == seed for row in done):
                    continue
                done.append(one_run(corpus, tokenizer, parameters, seed))
                print(name, reader, json.dumps(done[-1]), flush=True)
                yield


def main():
    record = read_json(OUT)
    record["machine"] = measured_on("cpu", tokenizers, tiktoken)
    if "speed" in sys.argv[1:]:
        record["speed"] = measure_speed()
        write_json(OUT, record)
        print(json.dumps(record["speed"], indent=1))
    if "compare" in sys.argv[1:]:
        for _ in compare(record.setdefault("compare", {})):
            write_json(OUT, record)


if __name__ == "__main__":
    assert len(set(byte_characters())) == 256
    main()
