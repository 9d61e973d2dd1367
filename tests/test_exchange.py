"""chargpt import and export: models of other programs in, ours out, by the command."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from chargpt_lib.bpe import BPETokenizer
from chargpt_lib.checkpoints import load_model, save_model
from chargpt_lib.cli.main import main
from chargpt_lib.data import CharTokenizer
from chargpt_lib.formats.nanogpt import save_nanogpt
from chargpt_lib.gpt import GPT, GPTConfig
from chargpt_lib.sampling import generate
from tests.tiny import TEXT, TOKENIZER, tiny_gpt, tiny_modern_gpt

transformers = pytest.importorskip("transformers")
transformers.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")


@pytest.fixture
def saved():
    """A saved model of ours, in the folder `mine`."""
    model = tiny_gpt().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    save_model(model, TOKENIZER, "mine")
    return model


def greedy(folder, prompt="O damp"):
    model, tokenizer = load_model(folder)
    return generate(model, prompt, 9, temperature=0, tokenizer=tokenizer)


@pytest.mark.parametrize("name", ["transformers", "nanogpt"])
def test_there_and_back_again(name, saved, capsys):
    assert main(["export", "mine", "--format", name, "--out", "theirs"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("theirs: ")
    assert all(path.name in said for path in Path("theirs").iterdir())
    assert main(["import", "theirs", "--out", "back"]) == 0
    said = capsys.readouterr().out
    assert f"a GPT of {saved.num_params():,} parameters" in said.replace(
        f"{load_model('back')[0].num_params():,}", f"{saved.num_params():,}"
    )
    assert f"a vocabulary of {TOKENIZER.vocab_size} characters" in said
    assert "chargpt train --init-from back" in said
    assert greedy("back") == greedy("mine")
    assert main(["sample", "back", "--max-new-tokens", "5"]) == 0
    assert main(["info", "back"]) == 0


def test_transformers_opens_an_export(saved):
    assert main(["export", "mine", "--out", "theirs"]) == 0  # the format's default
    theirs = transformers.AutoModelForCausalLM.from_pretrained("theirs")
    tokenizer = transformers.AutoTokenizer.from_pretrained("theirs")
    ids = tokenizer("O damp", return_tensors="pt")["input_ids"]
    written = theirs.generate(ids, max_new_tokens=9, do_sample=False, pad_token_id=0)
    assert tokenizer.decode(written[0]) == greedy("mine")


def test_onnx_is_written(saved):
    pytest.importorskip("onnx")
    assert main(["export", "mine", "--format", "onnx", "--out", "graph"]) == 0
    assert Path("graph/model.onnx").is_file()


def test_the_card_of_a_run_says_what_it_learned_from_and_how_well(tmp_path):
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "diary.txt").write_text(TEXT, encoding="utf-8")
    sizes = ["--n-layer", "1", "--n-head", "2", "--n-embd", "48", "--block-size", "16"]
    steps = ["--steps", "6", "--eval-interval", "3", "--batch-size", "4", "--device", "cpu"]
    text = str(tmp_path / "secret" / "diary.txt")
    assert main(["train", "--corpus", text, *sizes, *steps, "--out", "run"]) == 0
    assert main(["export", "run", "--out", "theirs", "--license", "cc-by-4.0"]) == 0
    card = Path("theirs/README.md").read_text(encoding="utf-8")
    rows = [json.loads(row) for row in Path("run/log.jsonl").read_text().splitlines()]
    least = min(row["val_loss"] for row in rows if row["val_loss"] is not None)
    assert f"{least:.4f} nats per character" in card
    assert "diary.txt" in card and "secret" not in card
    assert "license: cc-by-4.0\n" in card.split("---")[1]
    # A checkpoint of the run is of the run, too.
    checkpoint = next(Path("run").glob("step-*"))
    assert main(["export", str(checkpoint), "--out", "again"]) == 0
    assert "diary.txt" in Path("again/README.md").read_text(encoding="utf-8")


def test_a_checkpoint_without_its_alphabet_gets_it_from_the_text(saved):
    save_nanogpt(saved, TOKENIZER, "nano")
    Path("nano/meta.pkl").rename("elsewhere.pkl")
    assert main(["import", "nano/ckpt.pt", "--meta", "elsewhere.pkl", "--out", "one"]) == 0
    Path("text.txt").write_text("".join(TOKENIZER.alphabet) + TEXT, encoding="utf-8")
    assert main(["import", "nano", "--text", "text.txt", "--out", "two"]) == 0
    assert greedy("one") == greedy("two") == greedy("mine")


def test_a_gpt2_of_transformers_comes_in():
    tokenizer = BPETokenizer.train(TEXT, 280, ["<|endoftext|>"])
    config = transformers.GPT2Config(
        vocab_size=tokenizer.vocab_size, n_positions=32, n_embd=16, n_layer=2, n_head=2
    )
    torch.manual_seed(0)
    transformers.GPT2LMHeadModel(config).save_pretrained("hub")
    tokenizer.save_gpt2("hub")
    assert main(["import", "hub", "--out", "mine"]) == 0
    model, opened = load_model("mine")
    assert opened.to_dict() == tokenizer.to_dict()
    assert model.config == replace(
        GPTConfig.gpt2(),
        vocab_size=tokenizer.vocab_size,
        block_size=32,
        n_layer=2,
        n_head=2,
        n_embd=16,
    )


def test_what_a_checkpoint_does_not_say_can_be_said(saved):
    save_nanogpt(saved, TOKENIZER, "nano")
    assert main(["import", "nano", "--activation", "gelu_tanh", "--out", "early"]) == 0
    assert load_model("early")[0].config == replace(saved.config, activation="gelu_tanh")


def fails(arguments, capsys):
    """What a command says that cannot be done; it leaves nothing behind."""
    before = sorted(Path().rglob("*"))
    assert main(arguments) == 2
    assert sorted(Path().rglob("*")) == before
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"chargpt {arguments[0]}: ") and captured.err.count("\n") == 1
    return captured.err


def test_what_cannot_be_imported_is_said_and_leaves_nothing(saved, capsys):
    Path("bert").mkdir()
    Path("bert/config.json").write_text(json.dumps({"model_type": "bert"}))
    Path("half.pt").write_bytes(b"PK\x03\x04 and no more")
    Path("full").mkdir()
    Path("full/thesis.txt").write_text("years of work")
    save_nanogpt(saved, TOKENIZER, "nano")
    for arguments, message in [
        (["import", "nowhere", "--out", "new"], "no folder is called 'nowhere'"),
        (["import", "bert", "--out", "new"], "model_type is 'bert'"),
        (["import", "half.pt", "--out", "new"], "half.pt"),
        (["import", "mine", "--out", "new"], "mine is a model of chargpt already"),
        (["import", "nano", "--out", "full"], "full is not an empty folder"),
        (
            ["import", "bert", "--meta", "meta.pkl", "--out", "new"],
            "--meta says where the alphabet",
        ),
        (["import", "bert", "--text", "t.txt", "--out", "new"], "--text says where the alphabet"),
        (["import", "nano", "--text", "nowhere.txt", "--out", "new"], "nowhere.txt"),
        (["import", "nano", "--meta", "nowhere.pkl", "--out", "new"], "nowhere.pkl"),
    ]:
        assert message in fails(arguments, capsys)


def test_what_cannot_be_exported_is_said_and_leaves_nothing(saved, capsys):
    save_model(tiny_modern_gpt(), TOKENIZER, "modern")
    wide = CharTokenizer.from_text(TEXT + "".join(map(chr, range(0x4E00, 0x4E40))))
    lecture = GPT(GPTConfig.lecture(wide.vocab_size, 16, 32, 2, 1))
    torch.nn.init.normal_(lecture.lm_head.bias)
    save_model(lecture, wide, "lecture")
    for arguments, message in [
        (["export", "modern", "--out", "new"], "n_gram is 3, and Llama has no embeddings"),
        (["export", "modern", "--format", "nanogpt", "--out", "new"], "nanoGPT"),
        (["export", "lecture", "--out", "new"], "the lm_head has a bias"),
        (["export", "nowhere", "--out", "new"], "nowhere"),
        (["export", "mine", "--format", "nanogpt", "--license", "mit", "--out", "n"], "--license"),
        (["export", "mine", "--out", "mine"], "mine is not an empty folder"),
    ]:
        assert message in fails(arguments, capsys)


def test_where_saving_fails_nothing_is_left(saved, capsys, monkeypatch):
    from chargpt_lib.cli import exchange

    save_nanogpt(saved, TOKENIZER, "nano")

    def full(model, tokenizer, folder):
        (folder / "config.json").write_text("{}")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(exchange, "save_model", full)
    assert "No space left" in fails(["import", "nano", "--out", "new"], capsys)


@pytest.mark.parametrize("name", ["transformers", "nanogpt"])
def test_a_run_begins_with_the_weights_of_another_program(name, saved, capsys):
    assert main(["export", "mine", "--format", name, "--out", "theirs"]) == 0
    Path("text.txt").write_text(TEXT, encoding="utf-8")
    options = ["--steps", "1", "--eval-interval", "1", "--batch-size", "2", "--device", "cpu"]
    said = []
    for folder in ("theirs", "mine"):
        capsys.readouterr()
        train = ["train", "--init-from", folder, "--corpus", "text.txt", *options]
        assert main([*train, "--out", f"run-{folder}"]) == 0
        lines = capsys.readouterr().out.splitlines()
        said.append([line for line in lines if "before the first step" in line])
    assert said[0] == said[1] and len(said[0]) == 1
