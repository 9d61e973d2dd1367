"""`--tokenizer`: pieces of words through all commands, resumed runs, and what cannot be done said before time is spent."""

import json
import math
import re
import shutil
from pathlib import Path

import pytest
import torch

from chargpt_lib.bpe import BPETokenizer, load_gpt2_tokenizer
from chargpt_lib.checkpoints import find_checkpoint, load_model
from chargpt_lib.cli.inputs import read_newlines
from chargpt_lib.cli.main import main
from chargpt_lib.cli.options import _read_settings
from chargpt_lib.data import CharTokenizer, load_corpus
from chargpt_lib.playhouse import write
from chargpt_lib.training import per_token_loss
from tests.test_command_line import STEPS, TINY, same_run, tree

TEXT = write(min_chars=6000).text


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    (tmp_path / "play.txt").write_text(TEXT, encoding="utf-8")


def train(*options, out="run", steps=STEPS, corpus="play.txt"):
    return main(["train", "--corpus", corpus, *TINY, *steps, "--out", str(out), *options])


def test_from_a_text_to_a_sample(capsys):
    assert train("--tokenizer", "bpe:300") == 0
    said = capsys.readouterr().out
    model, tokenizer = load_model("run")
    cut = int(0.9 * len(TEXT))
    # The merges are learned from the training text alone.
    assert tokenizer.to_dict() == BPETokenizer.train(TEXT[:cut], 300).to_dict()
    assert model.vocab_size == 300
    assert "a vocabulary of 300 tokens" in said
    assert re.search(r"validation loss \d\.\d{4} nats per token; step", said)
    assert _read_settings("run/settings.toml")["tokenizer"] == "bpe:300"

    nats = per_token_loss(model, tokenizer.encode(TEXT[cut:])).double()
    first = len(tokenizer.decode(tokenizer.encode(TEXT[cut:])[:1]))
    bits = nats.sum().item() / math.log(2) / (len(TEXT) - cut - first)
    found = re.search(r"that is (\d\.\d{4}) bits per character", said)
    assert float(found[1]) == pytest.approx(bits, abs=1e-3)

    assert main(["eval", "run"]) == 0
    said = capsys.readouterr().out
    assert f"{len(TEXT) - cut:,} characters, {len(nats) + 1:,} tokens" in said
    loss = nats.mean().item()
    found = [float(number) for number in re.findall(r"^(\d+\.\d{4}) ", said, re.M)]
    assert found == pytest.approx([loss, bits, bits, math.exp(loss)], rel=1e-4, abs=1e-4)
    assert "nats per token" in said and "floor" not in said

    assert main(["sample", "run", "--seed", "1", "--max-new-tokens", "40"]) == 0
    assert len(capsys.readouterr().out) > 40
    assert main(["attend", "run", "--prompt", "O damp goose!", "--out", "a.html"]) == 0
    assert Path("a.html").is_file()
    capsys.readouterr()
    assert main(["info", "run"]) == 0
    assert "FLOPs per token" in capsys.readouterr().out


def test_the_floor_is_told_in_the_unit_of_the_loss(capsys):
    few = ["--steps", "1", "--eval-batches", "1", "--time-budget", "None"]
    assert train("--tokenizer", "bpe:512", steps=few, corpus="playhouse") == 0
    said = capsys.readouterr().out
    corpus = load_corpus("playhouse")
    _, tokenizer = load_model("run")
    floor = corpus.val_entropy * len(corpus.val) / len(tokenizer.encode(corpus.val))
    assert f"above the floor of {floor:.4f}" in said
    assert main(["eval", "run"]) == 0
    said = capsys.readouterr().out
    assert f"nats per token (the floor is {floor:.4f})" in said
    in_bits = corpus.val_entropy / math.log(2)
    assert f"bits per character (the floor is {in_bits:.4f})" in said


def test_bytes_and_characters_differ_where_letters_have_several_bytes(capsys):
    text = "Die Gänse überqueren die Straße. " * 40
    Path("geese.txt").write_text(text, encoding="utf-8")
    assert train("--tokenizer", "bpe:280", corpus="geese.txt") == 0
    assert main(["eval", "run", "--split", "train"]) == 0
    said = capsys.readouterr().out
    per_character = float(re.search(r"^(\S+) bits per character", said, re.M)[1])
    per_byte = float(re.search(r"^(\S+) bits per byte", said, re.M)[1])
    part = text[: int(0.9 * len(text))]
    assert per_character / per_byte == pytest.approx(len(part.encode()) / len(part), rel=2e-3)


def test_a_resumed_run_has_its_own_tokenizer(capsys):
    constant = ["--schedule", "wsd", "--warmup", "0", "--decay", "0", "--tokenizer", "bpe:300"]
    whole = ["--steps", "12", "--eval-interval", "4", "--time-budget", "None"]
    assert train(*constant, out="whole", steps=whole) == 0
    assert train(*constant, out="part", steps=["--steps", "8", *whole[2:]]) == 0
    assert main(["train", "--resume", "--out", "part", "--steps", "12", "--device", "cpu"]) == 0
    assert same_run("whole", "part")
    capsys.readouterr()

    # The same tokenizer under another name is the same.
    shutil.copy(find_checkpoint(Path("part"), "last") / "tokenizer.json", "copy.json")
    more = ["train", "--resume", "--out", "part", "--device", "cpu", "--steps", "14"]
    assert main([*more, "--tokenizer", "copy.json"]) == 0
    assert _read_settings("part/settings.toml")["tokenizer"] == "bpe:300"
    before = tree(Path("part"))
    BPETokenizer.train(TEXT, 280).save("other.json")
    for name in ("bpe:301", "char", "other.json"):
        capsys.readouterr()
        assert main([*more[:-1], "20", "--tokenizer", name]) == 2
        said = capsys.readouterr().err
        assert "conflicts with the run, which has bpe:300" in said
        assert f"--tokenizer {name}" in said or f"/{name}" in said
    assert tree(Path("part")) == before


def test_a_tokenizer_from_a_file_goes_on_without_the_file():
    BPETokenizer.train(TEXT, 270).save("mine.json")
    assert train("--tokenizer", "mine.json") == 0
    saved = _read_settings("run/settings.toml")["tokenizer"]
    assert saved == str(Path("mine.json").resolve())
    Path("mine.json").unlink()
    # The folder of a run is a tokenizer, too.
    assert train("--tokenizer", "run", out="second") == 0
    assert load_model("second")[1].to_dict() == load_model("run")[1].to_dict()
    assert main(["train", "--resume", "--out", "run", "--steps", "14", "--device", "cpu"]) == 0
    _, tokenizer = load_model("run")
    assert tokenizer.vocab_size == 270


def test_gpt2s_vocabulary():
    few = ["--steps", "1", "--eval-batches", "1", "--time-budget", "None"]
    assert train("--tokenizer", "gpt2", steps=few) == 0
    model, tokenizer = load_model("run")
    assert model.vocab_size == 50_257
    assert tokenizer.to_dict() == load_gpt2_tokenizer().to_dict()


@pytest.mark.parametrize(
    "name, words",
    [
        ("bpe:100", ["bpe:100", "256 or more"]),
        ("bpe:many", ["bpe:many", "bpe:512 is one"]),
        ("words", ["'words'", "char, bpe:512", "gpt2"]),
        ("theirs", ["tokenizer.json", "Hugging Face", "chargpt import the whole model"]),
        ("broken.json", ["broken.json"]),
        ("small.json", ["not in the alphabet"]),
        ("halves", ["merges.txt, line 2", "of the same tokenizer?"]),
    ],
)
def test_what_cannot_be_done_is_said_before_time_is_spent(name, words, tmp_path, capsys):
    Path("theirs").mkdir()
    Path("theirs/tokenizer.json").write_text('{"version": "1.0", "model": {"type": "BPE"}}')
    Path("broken.json").write_text("{")
    CharTokenizer.from_text("abc").save("small.json")
    BPETokenizer.train(TEXT, 300).save_gpt2("halves")
    other = BPETokenizer.train("geese 123 " * 9, 270)
    other.save_gpt2("others")
    shutil.copy("others/vocab.json", "halves/vocab.json")
    before = tree(tmp_path)
    assert train("--tokenizer", name) == 2
    said = capsys.readouterr().err
    assert all(word in said for word in words), said
    assert tree(tmp_path) == before


def test_a_text_with_few_words_says_how_many_merges_there_are(capsys):
    Path("short.txt").write_text("goose " * 40, encoding="utf-8")
    assert train("--tokenizer", "bpe:512", corpus="short.txt") == 0
    said = capsys.readouterr().out
    assert "--tokenizer bpe:512: the text has no more pairs" in said
    assert "a vocabulary of 261 tokens" in said


def test_info_counts_a_preset_with_another_tokenizer(capsys):
    arguments = ["info", "--preset", "cpu", "--corpus", "play.txt", "--tokenizer", "bpe:300"]
    assert main(arguments) == 0
    said = capsys.readouterr().out
    assert "vocab_size 300" in said and "FLOPs per token" in said


def test_a_newline_as_typed():
    characters = CharTokenizer.from_text("abc\n")
    code = CharTokenizer.from_text("a\\b\n")
    pieces = BPETokenizer.train("goose", 256)
    for tokenizer, wanted in ((characters, "a\nb"), (code, "a\\nb"), (pieces, "a\nb")):
        assert read_newlines("a\\nb", tokenizer) == wanted


def test_old_runs_read_characters(capsys):
    assert train() == 0
    path = Path("run/settings.toml")
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text("".join(line for line in lines if not line.startswith("tokenizer")))
    assert main(["train", "--resume", "--out", "run", "--steps", "14", "--device", "cpu"]) == 0
    rows = [json.loads(line) for line in Path("run/log.jsonl").read_text().splitlines()]
    assert rows[-1]["step"] == 14 and isinstance(load_model("run")[1], CharTokenizer)
    assert torch.isfinite(torch.tensor(rows[-1]["val_loss"]))
