import math
import os
import platform
import secrets
import shlex
import sys
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

import torch

import chargpt_lib
from chargpt_lib.attention_maps import save_attention_page
from chargpt_lib.checkpoints import POINTER, find_checkpoint, load_model, read_spec
from chargpt_lib.cli.options import PRESETS, configs, flat, saved_settings, write_settings
from chargpt_lib.data import CharTokenizer, load_corpus
from chargpt_lib.devices import choose_device, pick_precision
from chargpt_lib.gpt import GPT
from chargpt_lib.sampling import generate
from chargpt_lib.trainer import read_log, train
from chargpt_lib.training import estimate_loss, evaluate


def find_device(name=None):
    """The device of this name, or choose_device()'s; and why. ValueError where nothing can be computed on it."""
    try:
        device, why = (torch.device(name), "--device says so") if name else choose_device()
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(
            f"nothing can be computed on {name or os.environ.get('CHARGPT_DEVICE')!r} here "
            f"({str(error).splitlines()[0]}): give another --device, or none"
        ) from None
    return device, why


@contextmanager
def settings_kept(options):
    """Puts the settings of the run inside into its folder; takes both away where no checkpoint comes of it."""
    out = Path(options.training.out)
    made = [folder for folder in (out, *out.parents) if not folder.exists()]
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_settings(out / "settings.toml", flat(options))
        yield
    finally:
        if not (out / POINTER).exists():
            (out / "settings.toml").unlink(missing_ok=True)
            for folder in made:
                with suppress(OSError):  # it is not empty
                    folder.rmdir()


def write_text(model, tokenizer, prompt="", seed=None, **knobs):
    """Writes to the standard output, character by character; an alphabet without line end begins with its first."""
    if not prompt:
        try:
            tokenizer.encode("\n")  # with which `generate` begins where the prompt is empty
        except ValueError:
            prompt = tokenizer.decode([0])
    for piece in generate(model, prompt, seed=seed, stream=True, tokenizer=tokenizer, **knobs):
        print(piece, end="", flush=True)
    print()


def announce(corpus, model, config, device, why):
    """What a run is going to do."""
    limits = (
        (config.steps, "steps"),
        (config.epochs, "epochs"),
        (config.time_budget, "seconds"),
        (config.patience, "evaluations without a new best"),
    )
    ends = " or ".join(f"{most:,.12g} {unit}" for most, unit in limits if most)
    precision = pick_precision(device) if config.precision == "auto" else config.precision
    print(
        f"{corpus.name}: {len(corpus.train):,} characters to learn from, {len(corpus.val):,} to be tested on"
    )
    print(
        f"a GPT of {model.num_params():,} parameters on {device.type} ({why}), {precision}, for {ends}"
    )
    print(f"into {config.out}", flush=True)


def conclude(result, model, tokenizer, config):
    """What came out of a run: the loss, the folder, a sample, what comes next."""
    out, floor = shlex.quote(config.out), result["floor"]
    above = (
        f", {result['loss'] - floor:.4f} above the floor of {floor:.4f}"
        if floor is not None
        else ""
    )
    kind = "estimated validation loss" if config.eval_batches else "validation loss"
    print(
        f"\n{kind} {result['loss']:.4f} nats per character{above}; step {result['step']:,} of {result['steps']:,}"
    )
    print(f"checkpoints, settings.toml and log.jsonl are in {config.out}\n")
    write_text(model, tokenizer, max_new_tokens=300, seed=config.seed)
    print(
        "\nnext:",
        f"chargpt sample {out}",
        f"chargpt eval {out}",
        f"chargpt attend {out} --prompt TEXT",
        sep="\n  ",
    )


def check_memory(sizes, device):
    """ValueError where a model does not even fit: weights, gradients and two moments are 16 bytes a parameter."""
    parameters = (
        12 * sizes.n_layer * sizes.n_embd**2 + (sizes.vocab_size + sizes.block_size) * sizes.n_embd
    )
    if device.type == "cuda":
        memory = torch.cuda.mem_get_info(device)[1]
    else:
        memory = (
            os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
            if hasattr(os, "sysconf")
            else math.inf
        )
    if 16 * parameters > memory:
        raise ValueError(
            f"a model of about {parameters:.1e} parameters takes {16 * parameters / 2**30:,.0f} GiB to "
            f"train, and {device.type} has {memory / 2**30:,.0f}: take a smaller --n-embd or --n-layer"
        )


def last_step(out):
    return int(find_checkpoint(out, "last").name[5:13])


def used_up(config):
    """Why a run has nothing left to do, or None."""
    out, step = Path(config.out), last_step(Path(config.out))
    rows = read_log(out) if (out / "log.jsonl").is_file() else []
    if config.steps and step >= config.steps:
        return f"it has made {step:,} steps, and --steps is {config.steps:,}"
    if config.time_budget and rows and rows[-1]["seconds"] >= config.time_budget:
        return f"it has had its --time-budget of {config.time_budget:g} seconds; give more, or None"


def train_command(options):
    """Trains, or goes on training -> the exit code."""
    corpus, (device, why) = load_corpus(options.corpus), find_device(options.device)
    tokenizer = CharTokenizer.from_text(corpus.train + corpus.val)
    sizes, config = configs(options, tokenizer.vocab_size)
    check_memory(sizes, device)
    if config.eval_batches and len(corpus.val) <= sizes.block_size:
        raise ValueError(
            f"the validation text has {len(corpus.val)} characters, too few for random windows of "
            f"{sizes.block_size}: --eval-batches 0 reads it whole"
        )
    if options.resume and (why := used_up(config)):
        print(f"nothing is left to do for the run in {config.out}: {why}")
        return 0
    begin, several, speaks = (
        train,
        int(os.environ.get("WORLD_SIZE", 1)) > 1,
        os.environ.get("RANK", "0") == "0",
    )
    torch.manual_seed(config.seed)
    model = GPT(sizes).to("cpu" if several else device)
    if speaks:
        announce(corpus, model, config, device, why)
    if several:  # torchrun or accelerate launch began this process and others
        from chargpt_lib.distributed import train_distributed as begin

        os.environ["CHARGPT_DEVICE"] = options.device or os.environ.get("CHARGPT_DEVICE", "")
    try:
        with settings_kept(options) if speaks else nullcontext():
            result = begin(model, corpus, config, tokenizer, options.resume)
    except RuntimeError as error:
        if "memory" not in str(error):
            raise
        raise ValueError(
            f"{device} has not enough memory: halve --batch-size, and double --grad-accum"
        ) from None
    except KeyboardInterrupt:  # the second one, or one before the first step
        if not Path(config.out, POINTER).exists():
            raise
        print(
            f"\ninterrupted in the middle of a step; the last checkpoint is of step {last_step(Path(config.out))}"
        )
        result = {"stopped": "interrupted"}
    if result["stopped"] == "interrupted":
        same = f" --device {options.device}" if options.device else ""
        print(f"go on with: chargpt train --resume --out {shlex.quote(config.out)}{same}" * speaks)
        return 130
    if speaks:
        conclude(result, model, tokenizer, config)
    return 0


def run_settings(folder):
    """The settings of a run, or of the run that a checkpoint belongs to. FileNotFoundError for a model alone."""
    return saved_settings(folder.parent if (folder / "state.pt").is_file() else folder)


def eval_command(options):
    """The exact loss over a split of a corpus -> the exit code."""
    if options.estimate is not None and options.estimate < 1:
        raise ValueError(f"--estimate is {options.estimate}; it has to be a whole number from 1 on")
    model, tokenizer = load_model(options.folder, find_device(options.device)[0])
    corpus = load_corpus(options.corpus or run_settings(options.folder)["corpus"])
    ids = tokenizer.encode(getattr(corpus, options.split))
    loss = evaluate(model, ids)
    floor = (
        f" (the floor is {corpus.val_floor:.4f})"
        if corpus.val_floor and options.split == "val"
        else ""
    )
    print(f"{corpus.name}, {options.split}: {len(ids):,} characters")
    print(f"{loss:.4f} nats per character{floor}")
    print(f"{loss / math.log(2):.4f} bits per character")
    print(f"{torch.tensor(loss).double().exp().item():.4f} perplexity")
    if options.estimate is not None:
        guess = estimate_loss(
            model, ids, options.estimate, generator=torch.Generator().manual_seed(1337)
        )
        print(
            f"{guess:.4f} nats per character, estimated from {options.estimate} batches of random windows"
        )
    return 0


def sample_command(options):
    """Writes samples to the standard output as they come -> the exit code."""
    for name, most in (("num_samples", 10**6), ("max_new_tokens", 10**8)):
        if not 1 <= getattr(options, name) <= most:
            raise ValueError(
                f"--{name.replace('_', '-')} is {getattr(options, name)}; it has to be a whole number "
                f"from 1 to {most:,}"
            )
    model, tokenizer = load_model(options.folder, find_device(options.device)[0])
    seed = secrets.randbits(31) if options.seed is None else options.seed
    knobs = (
        "prompt",
        "max_new_tokens",
        "temperature",
        "top_k",
        "top_p",
        "min_p",
        "repetition_penalty",
        "stop",
    )
    for number in range(options.num_samples):
        if number:
            print("-" * 15)
        write_text(
            model, tokenizer, seed=seed + number, **{name: getattr(options, name) for name in knobs}
        )
    if options.seed is None:
        print(f"(--seed {seed} writes the same again)", file=sys.stderr)
    return 0


def attend_command(options):
    """Writes a page with a text's attention maps -> the exit code."""
    if options.out.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"--out is {options.out}; a page is called something.html")
    model, tokenizer = load_model(options.folder, find_device(options.device)[0])
    options.out.parent.mkdir(parents=True, exist_ok=True)
    save_attention_page(model, tokenizer, options.prompt, options.out)
    print(f"{options.out}: open it in a browser")
    return 0


PARTS = {
    "token_embedding": "characters",
    "position_embedding": "positions",
    "attention": "attention",
    "feed_forward": "feed-forward",
    "norm": "norms",
    "lm_head": "last matrix",
}


def parameters_by_part(model):
    """{part of the GPT: how many parameters}; a tied matrix counts once, with the characters."""
    counts = dict.fromkeys(PARTS.values(), 0)
    for name, parameter in model.named_parameters():
        counts[next(part for key, part in PARTS.items() if key in name)] += parameter.numel()
    assert sum(counts.values()) == model.num_params()
    return counts


def flops_per_character(model):
    """Of training, at a full block: 6 N + 12 layers T C (PaLM, appendix B)."""
    config, counts = model.config, parameters_by_part(model)
    looked_up = counts["positions"] + (0 if config.tied else counts["characters"])
    return (
        6 * (model.num_params() - looked_up)
        + 12 * config.n_layer * config.block_size * config.n_embd
    )


def describe_model(config):
    """Prints a model's parts and its price. Nothing is computed: on the device "meta" weights have only shapes."""
    with torch.device("meta"):
        model = GPT(config)
    counts = parameters_by_part(model)
    print(", ".join(f"{name} {value}" for name, value in vars(config).items()))
    for part, count in counts.items():
        remark = "  (also the last matrix)" if part == "characters" and config.tied else ""
        print(f"{part:13}{count:13,}{count / model.num_params():7.1%}{remark}")
    print(f"{'in all':13}{model.num_params():13,}")
    print(f"{flops_per_character(model):,} FLOPs a character in training (6 N + 12 layers T C)")


def info_command(options):
    """Prints what is known of runs, of a preset, of this machine -> the exit code."""
    for folder in options.folders:
        print(f"{folder}:")
        describe_model(
            read_spec(folder if (folder / "config.json").is_file() else find_checkpoint(folder))[0]
        )
        if rows := read_log(folder) if (folder / "log.jsonl").is_file() else []:
            best = min((row["val_loss"], row["step"]) for row in rows)
            print(
                f"{rows[-1]['step']:,} steps; the least validation loss is {best[0]:.4f}, at step {best[1]:,}"
            )
    if options.preset and options.preset not in PRESETS:
        raise ValueError(f"no preset is called {options.preset!r}: there are {', '.join(PRESETS)}")
    if options.preset:
        corpus = load_corpus(options.corpus)
        describe_model(
            PRESETS[options.preset][0](
                CharTokenizer.from_text(corpus.train + corpus.val).vocab_size
            )
        )
    device, why = find_device(options.device)
    print(
        f"device {device.type} ({why}), precision {pick_precision(device)}, {torch.get_num_threads()} threads"
    )
    print(
        f"chargpt {chargpt_lib.__version__}, torch {torch.__version__}, Python {platform.python_version()}"
    )
    return 0
