"""The commands `import` and `export`: models in the files of nanoGPT, of transformers, and as ONNX."""

import shlex
from pathlib import Path

from chargpt_lib.checkpoints import load_model, save_model
from chargpt_lib.cli.inputs import check_own_model, is_own_model, open_foreign_model
from chargpt_lib.cli.options import saved_settings
from chargpt_lib.files import atomic_folder, check_new_folder
from chargpt_lib.formats.nanogpt import save_nanogpt
from chargpt_lib.formats.onnx_graph import export_onnx
from chargpt_lib.gpt2 import export_transformers
from chargpt_lib.trainer import read_log


def _check_out(out):
    """Raises: ValueError where no folder is named, FileExistsError where there is something in it."""
    if out is None:
        raise ValueError("--out is missing: name a new folder")
    check_new_folder(out)


def import_command(args):
    """Makes a saved model of ours of another program's model."""
    _check_out(args.out)
    if is_own_model(args.source):
        raise ValueError(f"{args.source} is a model of chargpt already: it needs no import")
    with atomic_folder(args.out) as folder:
        model, tokenizer = open_foreign_model(
            args.source,
            args.meta,
            args.text,
            activation=args.activation,
            scaled_by=args.scaled_by,
        )
        save_model(model, tokenizer, folder)
    print(
        f"{args.source}: a GPT of {model.num_params():,} parameters, a vocabulary of {tokenizer.vocab_size:,} "
        f"{tokenizer.unit}s"
    )
    out = shlex.quote(str(args.out))
    print(f"saved in {args.out}; next:")
    print(f"  chargpt sample {out}")
    print(f"  chargpt train --init-from {out} --corpus TEXT")
    return 0


def _facts(folder, unit):
    """What is known of a run, for the card of its model: {"data": ..., "loss": ...}, without what is not known."""
    if (folder / "state.pt").is_file():
        folder = folder.parent
    facts = {}
    if (folder / "settings.toml").is_file():
        # A file's name, and not its path, which is nobody's business.
        facts["data"] = Path(saved_settings(folder)["corpus"]).name
    if (folder / "log.jsonl").is_file():
        losses = [row["val_loss"] for row in read_log(folder) if row["val_loss"] is not None]
        if losses:
            facts["loss"] = f"{min(losses):.4f} nats per {unit}"
    return facts


def export_command(args):
    """Writes a model in the files of another program."""
    _check_out(args.out)
    check_own_model(args.folder)
    model, tokenizer = load_model(args.folder)
    if args.format == "transformers":
        facts = _facts(args.folder, tokenizer.unit)
        if args.license is not None:
            facts["license"] = args.license
        export_transformers(model, tokenizer, args.out, facts)
    elif args.license is not None:
        raise ValueError(f"--license is for the model card of transformers; {args.format} has none")
    elif args.format == "nanogpt":
        save_nanogpt(model, tokenizer, args.out)
    else:
        export_onnx(model, tokenizer, args.out)
    names = ", ".join(sorted(path.name for path in args.out.iterdir()))
    print(f"{args.out}: {names}")
    return 0
