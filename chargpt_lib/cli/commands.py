"""What the commands do: each function takes parsed options, prints, and returns the exit code."""

import math
import os
import platform
import secrets
import shlex
import sys
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path

import torch

import chargpt_lib
from chargpt_lib.attention_maps import save_attention_page
from chargpt_lib.bpe import bits_of_text
from chargpt_lib.checkpoints import (
    POINTER_FILE,
    build_meta_model,
    build_model,
    checkpoint_step,
    find_checkpoint,
    load_model,
    read_config_and_tokenizer,
)
from chargpt_lib.cli.cost import (
    TRAINING_BYTES,
    check_cost_options,
    print_cost,
)
from chargpt_lib.cli.exchange import export_command, import_command
from chargpt_lib.cli.inputs import (
    check_encodable,
    check_initial_text,
    check_initial_tokenizer,
    check_own_model,
    check_run_tokenizer,
    default_tokenizer,
    encode_val,
    is_pipe,
    load_run_text,
    load_text,
    load_tokenizer_option,
    read_newlines,
    read_prompt,
    save_pipe,
    text_name,
)
from chargpt_lib.cli.options import PRESETS, saved_settings, settings_of, write_settings
from chargpt_lib.cli.output import after_work, tolerated_output
from chargpt_lib.data import load_corpus
from chargpt_lib.devices import pick_device_and_reason, pick_precision, world_size
from chargpt_lib.playground import save_playground
from chargpt_lib.recipe import TrainConfig
from chargpt_lib.sampling import generate
from chargpt_lib.scaling_laws import flops_per_token
from chargpt_lib.shards import Shards
from chargpt_lib.trainer import describe_data_change, read_log, train
from chargpt_lib.training import estimate_loss, evaluate

# ---------------------------------------------------------------- train


def _total_memory(device):
    """Bytes of memory of a graphics card, or of the computer; infinity where the system does not say."""
    if device.type == "cuda":
        _, total = torch.cuda.mem_get_info(device)
        return total
    if hasattr(os, "sysconf"):  # not on Windows
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return math.inf


def _check_memory(model_config, optimizer, device):
    """Raises: ValueError for a model that cannot be trained in this memory, however small the batch."""
    parameters = model_config.min_parameters()
    needed = TRAINING_BYTES[optimizer] * parameters
    memory = _total_memory(device)
    if needed > memory:
        raise ValueError(
            f"a model of about {parameters:.1e} parameters takes {needed / 2**30:,.0f} GiB to train, and "
            f"{device.type} has {memory / 2**30:,.0f} GiB: take a smaller --n-embd or --n-layer"
        )


def _check_validation_text(corpus, tokenizer, block_size, eval_batches):
    """Raises: ValueError where the validation text is shorter than the windows that would be drawn from it."""
    if eval_batches == 0:
        return
    ids = encode_val(corpus, tokenizer)
    if ids is None:
        return
    length = len(ids)
    if length <= block_size:
        raise ValueError(
            f"the validation text has {length} {tokenizer.unit}s, too few for random windows of "
            f"{block_size}: --eval-batches 0 reads it whole"
        )


def _last_step(out):
    """The step of a run's last checkpoint."""
    return checkpoint_step(find_checkpoint(Path(out), "last"))


def _read_rows(folder):
    """The rows of the log in a folder; none where there is no log."""
    if (Path(folder) / "log.jsonl").is_file():
        return read_log(folder)
    return []


def _why_finished(config):
    """Why a run has nothing left to do, as a clause; None where it has."""
    step = _last_step(config.out)
    if config.steps is not None and step >= config.steps:
        return f"it has made {step:,} steps, and --steps is {config.steps:,}"
    rows = _read_rows(config.out)
    if config.time_budget is not None and rows and rows[-1]["seconds"] >= config.time_budget:
        return (
            f"its --time-budget of {config.time_budget:g} s is used up: "
            "raise it, or pass --time-budget None"
        )
    return None


@contextmanager
def _settings_saved(args):
    """Within it, the run's folder holds its settings. Where no checkpoint comes of the run, nothing is left behind."""
    out = Path(args.training.out)
    created = [folder for folder in (out, *out.parents) if not folder.exists()]
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_settings(out / "settings.toml", settings_of(args))
        yield
    finally:
        if not (out / POINTER_FILE).exists():
            (out / "settings.toml").unlink(missing_ok=True)
            for folder in created:
                with suppress(OSError):  # it is not empty
                    folder.rmdir()


def _print_initial(args):
    """Prints where the weights come from, and the learning rate; that of a preset is for training from scratch."""
    usual = TrainConfig(**PRESETS[args.preset].training).learning_rate
    print(f"starting from the weights of {args.init_from}")
    print(
        f"learning rate {args.training.learning_rate:g}; the preset {args.preset} has {usual:g}, for "
        "training from scratch"
    )


def _print_loss_before(model, tokenizer, corpus, config):
    """Prints the validation loss before the first step, exact or estimated, as the config says."""
    ids = encode_val(corpus, tokenizer)
    if ids is None:
        return
    if config.eval_batches == 0:
        kind = "validation loss"
        loss = evaluate(model, ids)
    else:
        kind = "estimated validation loss"
        generator = torch.Generator().manual_seed(config.seed)
        batch_size = config.batch_size * world_size()
        loss = estimate_loss(model, ids, config.eval_batches, batch_size, generator)
    print(f"{kind} before the first step: {loss:.4f} nats per {tokenizer.unit}", flush=True)


def _print_plan(corpus, tokenizer, model, config, device, device_reason):
    """Prints what a run is going to do."""
    limits = {
        "steps": config.steps,
        "epochs": config.epochs,
        "seconds": config.time_budget,
        "evaluations without a new best": config.patience,
    }
    ends = " or ".join(f"{limit:,.12g} {unit}" for unit, limit in limits.items() if limit)
    precision = config.precision
    if precision == "auto":
        precision = pick_precision(device)
    if isinstance(corpus, Shards):
        train_size = f"{len(corpus):,} {tokenizer.unit}s"
        val_size = 0 if corpus.val_ids is None else len(corpus.val_ids)
    else:
        train_size = f"{len(corpus.train):,} characters"
        val_size = len(corpus.val)
    print(f"{text_name(corpus)}: {train_size} for training, {val_size:,} for validation")
    if tokenizer.unit != "character":
        print(f"a vocabulary of {tokenizer.vocab_size:,} {tokenizer.unit}s")
    print(
        f"a GPT of {model.num_params():,} parameters on {device.type} ({device_reason}), "
        f"{precision}, for {ends}"
    )
    print(f"saving to {config.out}", flush=True)


def _print_result(result, model, tokenizer, corpus, config):
    """Prints what came out of a run: the loss, the folder, a sample, what to do next."""
    kind = "estimated validation loss" if config.eval_batches else "validation loss"
    best = result["best_val_loss"]
    # None: the run was killed before its first evaluation, and has nothing left to do.
    if best is None:
        print(f"\nno {kind} was measured in {result['steps']:,} steps")
    else:
        line = f"{kind} {best:.4f} nats per {tokenizer.unit}"
        if result["floor"] is not None:
            above = best - result["floor"]
            line += f", {above:.4f} above the floor of {result['floor']:.4f}"
        print(f"\n{line}; step {result['best_step']:,} of {result['steps']:,}")
        if tokenizer.unit != "character":
            per_character, _ = bits_of_text(best, encode_val(corpus, tokenizer), tokenizer)
            print(f"that is {per_character:.4f} bits per character")
    print(f"checkpoints, settings.toml and log.jsonl are in {config.out}\n")
    _print_sample(model, tokenizer, max_new_tokens=300, seed=config.seed)
    out = shlex.quote(config.out)
    print("\nnext:")
    print(f"  chargpt sample {out}")
    print(f"  chargpt eval {out}")
    print(f"  chargpt attend {out} --prompt TEXT")


def _is_first_process():
    """Whether this process is the one, of several, that prints and writes."""
    return int(os.environ.get("RANK", 0)) == 0


def _run_training(model, corpus, args, tokenizer):
    """Trains in this process, or in all that torchrun has started -> what `train` returns."""
    if world_size() == 1:
        return train(model, corpus, args.training, tokenizer, args.resume, args.corpus_changed)
    # Only here: importing PyTorch's FSDP takes a while.
    from chargpt_lib.distributed import train_distributed

    return train_distributed(
        model,
        corpus,
        args.training,
        tokenizer,
        args.resume,
        device=args.device,
        corpus_changed=args.corpus_changed,
    )


def train_command(args):
    """Trains a model, or resumes a run."""
    with tolerated_output():
        try:
            return _train(args)
        except BrokenPipeError as error:
            # Not of the output, which is tolerated: for one, another process of the training is gone.
            raise ConnectionError(f"the training broke off: {error}") from error


def _load_resumed_text(args):
    """The corpus of a run that is resumed, and the run's tokenizer; args.corpus is then where the text is now.

    Raises: ValueError for another text, unless that is accepted; FileNotFoundError where there is none.
    """
    out = Path(args.training.out)
    settings = saved_settings(out)
    saved = settings["corpus"]
    is_given = settings_of(args)["corpus"] != saved
    accepts = args.corpus_changed == "accept"
    if is_given or (accepts and Path(saved).exists()):
        corpus = load_text(args.corpus)
        change = describe_data_change(out, corpus)
    else:
        args.corpus, corpus, change = load_run_text(saved, out)
    if change is not None and not accepts:
        raise ValueError(
            f"{args.corpus} is not the text that the run in {out} was trained on: {change}. Restore "
            "the text, or pass its file by --corpus; begin a new run in another --out; or go on with "
            "the text as it is now by --corpus-changed accept"
        )
    _, tokenizer = read_config_and_tokenizer(find_checkpoint(out, "last"))
    given = settings_of(args)["tokenizer"]
    check_run_tokenizer(given, settings["tokenizer"], tokenizer, corpus)
    args.tokenizer = settings["tokenizer"]
    if change is None:
        return corpus, tokenizer
    try:
        check_encodable(corpus, tokenizer)
    except ValueError as error:
        raise ValueError(
            f"{args.corpus} has something that the run's tokenizer cannot encode, so only a new run "
            f"in another --out can be trained on it: {error}"
        ) from None
    return corpus, tokenizer


def _find_tokenizer(args, corpus):
    """The tokenizer of a new run: that of --init-from, else what --tokenizer names.

    Raises: ValueError where the one of --init-from is not meant, or does not fit the text.
    """
    if args.initial is None:
        return load_tokenizer_option(args.tokenizer, corpus)
    _, tokenizer = args.initial
    if isinstance(corpus, Shards):
        check_encodable(corpus, tokenizer)
    else:
        check_initial_text(corpus, tokenizer, args.init_from)
    check_initial_tokenizer(args.tokenizer, tokenizer, args.init_from, corpus)
    return tokenizer


def _make_model(args, config):
    """The model to train, with the weights of --init-from where that is given."""
    model = build_model(config)
    if args.initial is not None:
        # Not the initial model itself, which has its own dropout.
        initial_model, _ = args.initial
        model.load_state_dict(initial_model.state_dict())
        args.initial = None  # a second copy of the weights need not stay in memory
    return model


def _train(args):
    """Trains a model, or resumes a run. Returns the exit code."""
    device, device_reason = pick_device_and_reason(args.device)
    if is_pipe(args.corpus):
        # The settings of the run shall name a text that can be read again.
        args.corpus = save_pipe(args.corpus)
    if args.resume:
        corpus, tokenizer = _load_resumed_text(args)
    else:
        corpus = load_text(args.corpus)
        tokenizer = _find_tokenizer(args, corpus)
    model_config = replace(args.model, vocab_size=tokenizer.vocab_size)
    config = args.training
    _check_memory(model_config, config.optimizer, device)
    _check_validation_text(corpus, tokenizer, model_config.block_size, config.eval_batches)
    if args.resume:
        finished = _why_finished(config)
        if finished is not None:
            print(f"nothing is left to do for the run in {config.out}: {finished}")
            return 0

    is_fine_tuned = args.initial is not None
    torch.manual_seed(config.seed)
    model = _make_model(args, model_config)
    if world_size() == 1:
        model = model.to(device)  # each of several processes takes it to a card of its own, later
    first = _is_first_process()
    if first:
        if is_fine_tuned:
            _print_initial(args)
        _print_plan(corpus, tokenizer, model, config, device, device_reason)
    try:
        with _settings_saved(args) if first else nullcontext():
            if first and is_fine_tuned:
                # The first of several processes will have the first card, which is this device.
                _print_loss_before(model.to(device), tokenizer, corpus, config)
            result = _run_training(model, corpus, args, tokenizer)
        interrupted = result["stop_reason"] == "interrupted"
    except RuntimeError as error:
        if "memory" not in str(error):
            raise
        raise ValueError(
            f"{device} is out of memory: halve --batch-size and double --grad-accum"
        ) from None
    except KeyboardInterrupt:
        # The first Ctrl-C ends a run after its step. This one came before the first step, or was the second.
        if not (Path(config.out) / POINTER_FILE).exists():
            raise
        step = _last_step(config.out)
        print(f"\ninterrupted in the middle of a step; the last checkpoint is of step {step}")
        interrupted = True

    if interrupted:
        if first:
            device_option = f" --device {args.device}" if args.device else ""
            out = shlex.quote(config.out)
            print(f"resume with: chargpt train --resume --out {out}{device_option}")
        return 130
    if first:
        with after_work(f"the run is done, and saved in {config.out}"):
            _print_result(result, model, tokenizer, corpus, config)
    return 0


# ---------------------------------------------------------------- eval, sample, attend


def _check_range(option, value, low, high):
    """Raises: ValueError for a whole number that is too small or too large."""
    if not low <= value <= high:
        raise ValueError(f"{option} is {value}; it must be an integer from {low:,} to {high:,}")


def _load_for(args):
    """The model and the tokenizer in args.folder, on the device that args.device asks for."""
    device, _ = pick_device_and_reason(args.device)
    check_own_model(args.folder)
    return load_model(args.folder, device)


def _load_text_of_run(folder):
    """The corpus of a run, or of the run that a checkpoint belongs to.

    Raises: FileNotFoundError where it is not to be found, ValueError where it has changed.
    """
    run = folder
    if (folder / "state.pt").is_file():
        run = folder.parent
    path, corpus, change = load_run_text(saved_settings(run)["corpus"], folder)
    if change is not None:
        raise ValueError(
            f"{path} is not the text that the run in {run} was trained on: {change}. Pass the file of "
            f"that text by --corpus; or, for the loss on the text as it is now, --corpus {path}"
        )
    return corpus


def _read_split(corpus, split, tokenizer):
    """The training or validation text, and its ids (N,). Raises: ValueError where shards cannot give them."""
    if isinstance(corpus, Shards):
        check_encodable(corpus, tokenizer)
        if split == "train":
            raise ValueError(
                f"--split train: the training part of {corpus.folder} is not evaluated, for shards may be larger than "
                "the memory: omit it, or pass a text by --corpus"
            )
        if corpus.val_ids is None:
            raise ValueError(
                f"{corpus.folder} was written without validation ids (val_size=0): pass another --corpus"
            )
        return tokenizer.decode(corpus.val_ids), corpus.val_ids
    text = corpus.val if split == "val" else corpus.train
    return text, tokenizer.encode(text)


def eval_command(args):
    """Prints the exact loss over a split of a corpus."""
    if args.estimate is not None and args.estimate < 1:
        raise ValueError(f"--estimate is {args.estimate}; it must be an integer >= 1")
    model, tokenizer = _load_for(args)
    if args.corpus is None:
        corpus = _load_text_of_run(args.folder)
    else:
        corpus = load_text(args.corpus)
    unit = tokenizer.unit
    text, ids = _read_split(corpus, args.split, tokenizer)
    loss = evaluate(model, ids)
    per_character, per_byte = bits_of_text(loss, ids, tokenizer)
    length = f"{len(text):,} characters"
    floor = ""
    floor_in_bits = ""
    if unit != "character":
        length += f", {len(ids):,} {unit}s"
    entropy = getattr(corpus, "val_entropy", None)  # that of shards nobody knows
    if args.split == "val" and entropy is not None:
        floor = f" (the floor is {entropy * len(text) / len(ids):.4f})"
        floor_in_bits = f" (the floor is {entropy / math.log(2):.4f})"
    print(f"{text_name(corpus)}, {args.split}: {length}")
    print(f"{loss:.4f} nats per {unit}{floor}")
    print(f"{per_character:.4f} bits per character{floor_in_bits}")
    print(f"{per_byte:.4f} bits per byte")
    # Unlike math.exp, torch's is infinity where the number is too large.
    print(f"{torch.tensor(loss, dtype=torch.float64).exp().item():.4f} perplexity, of a {unit}")
    if args.estimate is not None:
        generator = torch.Generator().manual_seed(1337)
        estimate = estimate_loss(model, ids, args.estimate, generator=generator)
        print(
            f"{estimate:.4f} nats per {unit}, estimated from {args.estimate} batches of random windows"
        )
    return 0


def _print_sample(model, tokenizer, prompt="", **sampling):
    """Generates text on the standard output, token by token; sampling: parameters of `generate`."""
    if prompt == "":
        # `generate` begins with a line end, where the tokenizer has one; else the first of its symbols does as well.
        try:
            tokenizer.encode("\n")
        except ValueError:
            prompt = tokenizer.decode([0])
    for piece in generate(model, prompt, stream=True, tokenizer=tokenizer, **sampling):
        print(piece, end="", flush=True)
    print()


def sample_command(args):
    """Generates text, on the standard output as it comes."""
    _check_range("--num-samples", args.num_samples, 1, 10**6)
    _check_range("--max-new-tokens", args.max_new_tokens, 1, 10**8)
    model, tokenizer = _load_for(args)
    prompt = read_prompt(args.prompt, tokenizer)
    stop = [read_newlines(text, tokenizer) for text in args.stop]
    seed = args.seed
    if seed is None:
        seed = secrets.randbits(31)
    for number in range(args.num_samples):
        if number > 0:
            print("-" * 15)
        _print_sample(
            model,
            tokenizer,
            prompt=prompt,
            max_new_tokens=args.max_new_tokens,
            temperature=args.temperature,
            top_k=args.top_k,
            top_p=args.top_p,
            min_p=args.min_p,
            repetition_penalty=args.repetition_penalty,
            stop=stop,
            seed=seed + number,
        )
    if args.seed is None:
        # Not on the standard output, which has nothing but the text.
        print(f"(--seed {seed} generates the same again)", file=sys.stderr)
    return 0


def _check_html(out):
    """Raises: ValueError where a page would get a name that no browser takes for one."""
    if out.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"--out is {out}; it must end in .html")


def attend_command(args):
    """Writes a page with the attention maps of a text."""
    _check_html(args.out)
    model, tokenizer = _load_for(args)
    prompt = read_prompt(args.prompt, tokenizer)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    save_attention_page(model, tokenizer, prompt, args.out)
    with after_work(f"{args.out} is written"):
        print(f"{args.out}: open it in a browser")
    return 0


def _known_floor(folder):
    """The irreducible loss of a run's corpus in nats per character, or None where nobody knows it."""
    if (folder / "state.pt").is_file():
        folder = folder.parent
    if not (folder / "settings.toml").is_file():
        return None
    # Only of the plays that the course writes itself is it known.
    if saved_settings(folder)["corpus"] != "playhouse":
        return None
    return load_corpus("playhouse").val_entropy


def page_command(args):
    """Writes a page in which the model computes in the browser."""
    _check_html(args.out)
    check_own_model(args.folder)
    model, tokenizer = load_model(args.folder)
    text = None
    if args.prompt != "":
        text = read_prompt(args.prompt, tokenizer)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    save_playground(model, tokenizer, args.out, text, _known_floor(args.folder))
    with after_work(f"{args.out} is written"):
        size = args.out.stat().st_size
        print(f"{args.out}: {size / 1e6:.1f} MB; open it in a browser")
    return 0


# ---------------------------------------------------------------- info

# A piece of a parameter's name -> the part of the GPT it belongs to.
PARTS = {
    "token_embedding": "token embedding",
    "position_embedding": "position embedding",
    "n_gram_embedding": "n-gram embedding",
    "attention": "attention",
    "feed_forward": "feed-forward",
    "norm": "norms",
    "lm_head": "lm_head",
}


def _part_of(parameter_name):
    """The part of the GPT that a parameter belongs to."""
    for piece, part in PARTS.items():
        if piece in parameter_name:
            return part
    raise KeyError(parameter_name)


def parameters_by_part(model):
    """{part of the GPT: parameters}; a tied matrix counts once, as the token embedding."""
    counts = dict.fromkeys(PARTS.values(), 0)
    for name, parameter in model.named_parameters():
        counts[_part_of(name)] += parameter.numel()
    return counts


def _print_model(config, tokenizer):
    """Prints the parts of a model and its FLOPs."""
    # On the device "meta" weights have shapes and no values: not even GPT-2 needs memory or time.
    model = build_meta_model(config)
    settings = {"model_type": config.model_type, **vars(config)}
    print(", ".join(f"{name} {value}" for name, value in settings.items()))
    total = model.num_params()
    for part, count in parameters_by_part(model).items():
        # A tied lm_head has no parameters of its own; any other part without some, the model lacks.
        if count == 0 and part != "lm_head":
            continue
        remark = ""
        if part == "token embedding" and config.tied:
            remark = "  (shared with lm_head)"
        print(f"{part:20}{count:13,}{count / total:7.1%}{remark}")
    print(f"{'total':20}{total:13,}")
    print(f"{flops_per_token(model):,} FLOPs per {tokenizer.unit} in training (6 N + 12 L T C)")


def _print_run(folder):
    """Prints what is known of a run, a checkpoint, or a saved model."""
    check_own_model(folder)
    print(f"{folder}:")
    model_folder = folder
    if not (folder / "config.json").is_file():
        model_folder = find_checkpoint(folder)
    config, tokenizer = read_config_and_tokenizer(model_folder)
    _print_model(config, tokenizer)
    if (folder / "settings.toml").is_file():
        init_from = saved_settings(folder)["init_from"]
        if init_from is not None:
            print(f"started from the weights of {init_from}")
    rows = _read_rows(folder)
    if rows:
        print(f"{rows[-1]['step']:,} steps")
        # What was measured before a change of the text cannot be compared with what came after it.
        since = rows[-1].get("data_since", 0)
        rows = [row for row in rows if row["step"] > since]
    # A run on ids alone, by the library, has no validation loss.
    evaluated = [row for row in rows if row["val_loss"] is not None]
    if evaluated:
        best = min(evaluated, key=lambda row: row["val_loss"])
        print(f"least validation loss {best['val_loss']:.4f}, at step {best['step']:,}")


def info_command(args):
    """Prints what is known of runs, of a preset, of this machine."""
    check_cost_options(args)
    for folder in args.folders:
        _print_run(folder)
    if args.preset is not None:
        if args.preset not in PRESETS:
            raise ValueError(f"no preset is called {args.preset!r}: there are {', '.join(PRESETS)}")
        corpus = load_text(args.corpus)
        name = args.tokenizer
        if name is None:
            name = default_tokenizer(args.corpus)
        tokenizer = load_tokenizer_option(name, corpus)
        preset = PRESETS[args.preset]
        config = preset.model(tokenizer.vocab_size)
        _print_model(config, tokenizer)
        if args.tokens is not None or args.devices is not None:
            print_cost(args, config, TrainConfig(**preset.training), tokenizer.unit)
    device, reason = pick_device_and_reason(args.device)
    print(
        f"device {device.type} ({reason}), precision {pick_precision(device)}, "
        f"{torch.get_num_threads()} threads"
    )
    print(
        f"chargpt {chargpt_lib.__version__}, torch {torch.__version__}, "
        f"Python {platform.python_version()}"
    )
    return 0


# ---------------------------------------------------------------- check, grade


def _print_verdicts(record):
    """Prints the verdicts on one notebook."""
    for name, mark in record["marks"].items():
        if mark == "✓":
            print(f"{mark} {name}")
        else:
            print(f"{mark} {name}: {record['hints'][name]}")
    for problem in record["problems"]:
        print(problem)


def check_command(args):
    """Grades one notebook and prints its verdicts."""
    from chargpt_lib.exercises.judge import load_answer_keys
    from chargpt_lib.grading.batch import guess_lesson, resolve_lesson
    from chargpt_lib.grading.intake import collect_submissions
    from chargpt_lib.grading.submission import grade_submission

    load_answer_keys()
    submissions = collect_submissions([args.notebook]).submissions
    if len(submissions) > 1:
        raise ValueError(f"check takes one notebook, and {args.notebook} holds {len(submissions)}")
    notebook = submissions[0]
    if notebook.problem is not None:
        raise ValueError(f"{notebook.name}: {notebook.problem}")
    if args.lesson is not None:
        lesson = resolve_lesson(args.lesson)
    else:
        lesson = guess_lesson([notebook.source])
    record = grade_submission(notebook.source, lesson, secrets.randbits(31))
    with after_work("the notebook is graded"):
        _print_verdicts(record)
    all_right = set(record["marks"].values()) == {"✓"}
    return 0 if all_right else 1


def grade_command(args):
    """Grades a class and prints it at a glance."""
    from chargpt_lib.exercises.judge import load_answer_keys
    from chargpt_lib.grading.batch import grade_batch, resolve_lesson

    load_answer_keys()
    lesson = None
    if args.lesson is not None:
        lesson = resolve_lesson(args.lesson)
    if args.out is None:
        raise ValueError("--out is missing: name a folder for the grades")
    if args.jobs is not None and args.jobs < 1:
        raise ValueError(f"--jobs is {args.jobs}; it must be an integer >= 1")
    batch = grade_batch(
        args.submissions, args.out, lesson, args.weights, args.seed, args.jobs, args.format
    )
    with after_work(f"the class is graded, and the grades are in {args.out}"):
        _print_grades(batch, args.out, args.format)
    all_ran = all(record["ran"] for record in batch["submissions"].values())
    return 0 if all_ran else 1


def _print_grades(batch, out, table_format):
    """Prints a graded class at a glance."""
    from chargpt_lib.course import page_of_module

    records = batch["submissions"]
    for name, record in records.items():
        if record["answers"]:
            score = f"{record['score']:.0f}%"
            marks = " ".join(record["marks"].values())
        else:
            score = "none"
            marks = " ".join("·" for _ in record["marks"])
        line = f"{score:>6}  {marks}  {name}"
        if record["learner"] is not None:
            line += f"  ({record['learner']['name']})"
        print(line)
        for problem in record["problems"]:
            print(f"        {problem}")
    if batch["passed_over"]:
        print("\nnobody's submission, and not graded:")
        for line in batch["passed_over"]:
            print(f"        {line}")
    if batch["older"]:
        print(
            f"\n{out} also keeps {batch['older']} older record(s); "
            "use a new --out for a table without them"
        )
    not_isolated = set()
    for record in records.values():
        if record["isolation"] is not None:
            not_isolated.update(what for what, done in record["isolation"].items() if not done)
    if not_isolated:
        print(
            "\nnot isolated by the system on this machine, only by Python's audit hook: "
            f"{', '.join(sorted(not_isolated))}"
        )
    page = page_of_module(batch["lesson"]).name
    if table_format != "csv":
        line = f"\n{out / table_format}.csv"
        if batch["left_out"]:
            line += f"   (without {batch['left_out']} that have no marks, or a later submission)"
        print(line)
    print(f"\n{out / 'grades.csv'}, grades.json, feedback/   (lesson {page}, seed {batch['seed']})")


COMMAND_FUNCTIONS = {
    "train": train_command,
    "eval": eval_command,
    "sample": sample_command,
    "attend": attend_command,
    "page": page_command,
    "info": info_command,
    "import": import_command,
    "export": export_command,
    "check": check_command,
    "grade": grade_command,
}
