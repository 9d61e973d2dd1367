"""A run knows its text: moved, it goes on; changed, it does not, unless that is meant."""

import json
import shutil

import pytest
import torch

from chargpt_lib.checkpoints import find_checkpoint, read_state
from chargpt_lib.cli.inputs import _moved_paths
from chargpt_lib.cli.main import main
from chargpt_lib.cli.options import _read_settings
from chargpt_lib.data import CharTokenizer, Corpus, load_corpus
from chargpt_lib.playhouse import write
from chargpt_lib.shards import Shards, write_shards
from chargpt_lib.trainer import describe_data_change, fingerprint_data, plot_run, read_log, train
from chargpt_lib.training import evaluate
from tests.tiny import CORPUS, IDS, TOKENIZER, settings, tiny_gpt

TEXT = write(min_chars=6400).text
HALF = len(TEXT) // 2
EXCHANGED = TEXT[HALF:] + TEXT[:HALF]  # the same letters, and as many
OPTIONS = [
    *"--n-layer 1 --n-head 2 --n-embd 16 --block-size 16 --batch-size 4 --device cpu".split(),
    *"--eval-interval 5 --time-budget None".split(),
]
RESUME = ["train", "--resume", "--device", "cpu", "--out", "runs/diary"]


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A folder with a text and a run of ten steps on it, entered."""
    home = tmp_path / "home1"
    (home / "texts").mkdir(parents=True)
    monkeypatch.chdir(home)
    (home / "texts" / "diary.txt").write_text(TEXT, encoding="utf-8")
    assert (
        main(
            [
                "train",
                "--corpus",
                "texts/diary.txt",
                "--out",
                "runs/diary",
                *OPTIONS,
                "--steps",
                "10",
            ]
        )
        == 0
    )
    return home


# ---------------------------------------------------------------- the command


def test_a_moved_folder_goes_on_as_if_it_had_stayed(home, monkeypatch, capsys):
    twin = home.parent / "twin"
    shutil.copytree(home, twin)
    assert main([*RESUME, "--steps", "20"]) == 0
    stayed = read_log("runs/diary")

    moved = home.parent / "home2"
    home.rename(moved.parent / "elsewhere")
    twin.rename(moved)
    monkeypatch.chdir(moved)
    assert main([*RESUME, "--steps", "20"]) == 0
    went_on = read_log("runs/diary")
    assert [row["val_loss"] for row in went_on] == [row["val_loss"] for row in stayed]
    assert _read_settings("runs/diary/settings.toml")["corpus"] == str(moved / "texts/diary.txt")
    capsys.readouterr()
    # From another folder, by the run or by one of its checkpoints.
    monkeypatch.chdir("/")
    for folder in (moved / "runs/diary", find_checkpoint(moved / "runs/diary", "best")):
        assert main(["eval", str(folder), "--device", "cpu"]) == 0
        assert f"{min(row['val_loss'] for row in went_on):.4f} nats" in capsys.readouterr().out


def test_a_file_that_is_nowhere_near_may_be_passed_under_any_name(home, capsys):
    (home / "texts" / "diary.txt").rename(home.parent / "old book")
    assert main([*RESUME, "--steps", "20"]) == 2
    said = capsys.readouterr().err
    assert "neither at" in said and "diary.txt" in said and "--corpus FILE" in said
    assert main(["eval", "runs/diary", "--device", "cpu"]) == 2
    assert "--corpus FILE" in capsys.readouterr().err
    assert main([*RESUME, "--steps", "20", "--corpus", "../old book"]) == 0
    capsys.readouterr()
    assert main(["eval", "runs/diary", "--device", "cpu"]) == 0
    assert "old book, val" in capsys.readouterr().out


def test_a_file_of_the_same_name_with_another_text_is_passed_over(home, monkeypatch):
    moved = home.parent / "home2"
    home.rename(moved)
    home.joinpath("texts").mkdir(parents=True)
    (home / "texts" / "diary.txt").write_text(EXCHANGED, encoding="utf-8")  # where it was
    (moved / "runs" / "diary.txt").write_bytes(b"\xff" * 50)  # nearer, and no text
    monkeypatch.chdir(moved)
    assert main([*RESUME, "--steps", "20"]) == 0
    assert _read_settings("runs/diary/settings.toml")["corpus"] == str(moved / "texts/diary.txt")


def test_a_path_of_another_system_leads_to_the_file_beside_the_run(home):
    found = list(_moved_paths(r"D:\home1\texts\diary.txt", home / "runs/diary"))
    assert home / "texts/diary.txt" in found
    assert home / "texts/diary.txt" in _moved_paths(str(home / "texts/diary.txt"), home)
    network = list(_moved_paths(r"\\server\share\texts\diary.txt", home / "runs/diary"))
    assert home / "texts/diary.txt" in network
    settings = home / "runs/diary/settings.toml"
    saved = settings.read_text(encoding="utf-8")
    windows = json.dumps("D:\\home1\\texts\\diary.txt")
    lines = [f"corpus = {windows}" if "diary.txt" in line else line for line in saved.splitlines()]
    settings.write_text("\n".join(lines), encoding="utf-8")
    assert main([*RESUME, "--steps", "20"]) == 0
    assert _read_settings(settings)["corpus"] == str(home / "texts/diary.txt")


@pytest.mark.parametrize(
    "text, words",
    [
        (EXCHANGED, [f"it has {len(TEXT):,} characters, as before", "from the beginning on"]),
        (TEXT + "Today I saw a goose.", ["20 characters were added at its end", "validation"]),
        (TEXT[:-100], [f"it has {len(TEXT) - 100:,} characters, not {len(TEXT):,}"]),
        (TEXT[:3000] + "☃" + TEXT[3001:], ["as before", "from about character 2,9"]),
        (TEXT[:3000] + TEXT[3300:], [f"not {len(TEXT):,}", "from about character 2,9"]),
    ],
    ids=["exchanged", "longer", "shorter", "another letter", "a part is missing"],
)
def test_a_changed_text_is_an_error_that_says_what_changed(text, words, home, capsys):
    (home / "texts" / "diary.txt").write_text(text, encoding="utf-8")
    before = {path: path.read_bytes() for path in home.rglob("*") if path.is_file()}
    for command, way_out in (
        ([*RESUME, "--steps", "20"], "--corpus-changed accept"),
        ([*RESUME, "--steps", "20", "--corpus", "texts/diary.txt"], "--corpus-changed accept"),
        (["eval", "runs/diary", "--device", "cpu"], "--corpus"),
    ):
        assert main(command) == 2
        said = capsys.readouterr().err
        assert all(word in said for word in [*words, way_out, "diary.txt is not the text"]), said
    assert {path: path.read_bytes() for path in home.rglob("*") if path.is_file()} == before


def test_line_ends_and_a_byte_order_mark_are_no_change(home):
    changed = TEXT.replace("\n", "\r\n").encode("utf-8-sig")
    (home / "texts" / "diary.txt").write_bytes(changed)
    assert main([*RESUME, "--steps", "20"]) == 0


def test_an_accepted_change_begins_the_validation_anew(home, capsys):
    best_before = min(row["val_loss"] for row in read_log("runs/diary"))
    (home / "texts" / "diary.txt").write_text(EXCHANGED, encoding="utf-8")
    assert main([*RESUME, "--steps", "20", "--corpus-changed", "accept"]) == 0
    state = read_state(find_checkpoint("runs/diary", "last"))
    rows = read_log("runs/diary")
    assert [row.get("data_since") for row in rows] == [None, None, 10, 10]
    assert state["data_since"] == 10 and state["best_step"] >= 10
    assert rows[1]["val_loss"] == best_before
    # From now on it is the text of the run.
    capsys.readouterr()
    assert main([*RESUME, "--steps", "25"]) == 0
    assert main(["eval", "runs/diary", "--device", "cpu"]) == 0
    assert "nats per character" in capsys.readouterr().out
    # What was before the change is neither the best nor on one curve with what came after.
    assert main(["info", "runs/diary"]) == 0
    best = min(row["val_loss"] for row in read_log("runs/diary")[2:])
    assert f"least validation loss {best:.4f}" in capsys.readouterr().out
    curves = plot_run("runs/diary").axes[0].lines
    assert [len(line.get_xdata()) for line in curves] == [2, 3, 2, 3]


def test_what_the_runs_alphabet_lacks_cannot_be_accepted(home, capsys):
    (home / "texts" / "diary.txt").write_text(TEXT + "☃" * 30, encoding="utf-8")
    assert main([*RESUME, "--steps", "20", "--corpus-changed", "accept"]) == 2
    said = capsys.readouterr().err
    assert "'☃'" in said and "new run" in said and "Traceback" not in said
    # Fewer letters are no obstacle: the run keeps its own alphabet.
    few = "".join(char for char in TEXT if char not in "EO")
    (home / "texts" / "diary.txt").write_text(few, encoding="utf-8")
    assert main([*RESUME, "--steps", "20", "--corpus-changed", "accept"]) == 0


def test_it_is_no_setting(home, capsys):
    assert "corpus_changed" not in _read_settings("runs/diary/settings.toml")
    (home / "file.toml").write_text('corpus_changed = "accept"')
    assert main(["train", "--config", "file.toml"]) == 2
    assert "belongs on the command line" in capsys.readouterr().err


# ---------------------------------------------------------------- the library


def exchanged(corpus):
    text = corpus.train + corpus.val
    half = len(text) // 2
    text = text[half:] + text[:half]
    cut = len(corpus.train)
    return corpus._replace(train=text[:cut], val=text[cut:])


def test_train_refuses_another_text_and_leaves_model_and_folder_alone(tmp_path):
    out = str(tmp_path / "run")
    train(tiny_gpt(), CORPUS, settings(out=out))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    model = tiny_gpt(seed=1)
    weights = [parameter.clone() for parameter in model.parameters()]
    with pytest.raises(ValueError, match="differs from the beginning on.*corpus_changed='accept'"):
        train(model, exchanged(CORPUS), settings(out=out, steps=20), resume=True)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert all(map(torch.equal, weights, model.parameters()))
    with pytest.raises(ValueError, match="corpus_changed is 'yes'"):
        train(model, CORPUS, settings(out=out), resume=True, corpus_changed="yes")


def test_an_accepted_change_is_measured_at_once(tmp_path):
    """The weights that the run came with are a candidate for the best ones on the new text."""
    out = str(tmp_path / "run")
    first = tiny_gpt()
    before = train(first, CORPUS, settings(out=out))
    other = exchanged(CORPUS)
    # A loss that no text has: whatever were kept of the old best would stay the best.
    state_file = find_checkpoint(out, "last") / "state.pt"
    state = torch.load(state_file)
    torch.save({**state, "best": -1.0, "waited": 7}, state_file)
    model = tiny_gpt()
    result = train(
        model, other, settings(out=out, learning_rate=10.0), resume=True, corpus_changed="accept"
    )
    assert result["steps"] == before["steps"] == 12
    assert result["best_step"] == 12
    exact = evaluate(model, TOKENIZER.encode(other.val))
    assert result["best_val_loss"] == pytest.approx(exact, abs=1e-6)
    assert find_checkpoint(out, "best") == find_checkpoint(out, "last")


def test_ids_and_shards_are_known_again_too(tmp_path):
    out = str(tmp_path / "ids")
    train(tiny_gpt(), IDS, settings(out=out), TOKENIZER)
    assert describe_data_change(out, IDS) is None
    assert "as before, and differs" in describe_data_change(out, IDS.flip(0))
    assert "5 ids were added" in describe_data_change(out, torch.cat([IDS, IDS[:5]]))

    write_shards([CORPUS.train], tmp_path / "one", TOKENIZER, shard_size=1000, val_size=300)
    write_shards([CORPUS.train[::-1]], tmp_path / "two", TOKENIZER, shard_size=1000, val_size=300)
    one = Shards(tmp_path / "one")
    out = str(tmp_path / "run")
    train(tiny_gpt(), one, settings(out=out))
    train(tiny_gpt(), one, settings(out=out, steps=15), resume=True)
    with pytest.raises(ValueError, match="it is another one"):
        train(tiny_gpt(), Shards(tmp_path / "two"), settings(out=out, steps=20), resume=True)
    with pytest.raises(ValueError, match="it is another one"):
        train(tiny_gpt(), CORPUS, settings(out=out, steps=20), TOKENIZER, resume=True)


def test_another_validation_part_of_the_same_text_is_a_change(tmp_path):
    out = str(tmp_path / "run")
    train(tiny_gpt(), CORPUS, settings(out=out))
    text = CORPUS.train + CORPUS.val
    other = CORPUS._replace(train=text[:2000], val=text[2000:])
    assert describe_data_change(out, other).startswith("its validation part begins after 2,000")


def test_a_run_that_kept_no_fingerprint_goes_on(tmp_path):
    out = str(tmp_path / "run")
    train(tiny_gpt(), CORPUS, settings(out=out))
    state_file = find_checkpoint(out, "last") / "state.pt"
    state = torch.load(state_file)
    del state["data"], state["data_since"]
    torch.save(state, state_file)
    result = train(tiny_gpt(), CORPUS, settings(out=out, steps=15), resume=True)
    assert result["steps"] == 15
    assert read_state(find_checkpoint(out, "last"))["data"] == fingerprint_data(CORPUS)


def test_every_single_changed_character_is_noticed():
    text = TEXT[:700]
    whole = Corpus("a", text[:600], text[600:])
    known = fingerprint_data(whole)
    for place in range(0, len(text)):
        changed = text[:place] + "☃" + text[place + 1 :]
        assert fingerprint_data(Corpus("b", changed[:600], changed[600:])) != known
    # The name and what is known of the entropy do not matter.
    assert fingerprint_data(whole._replace(name="c", val_entropy=1.0)) == known
    # Nor does a character that is none by itself, as Python may make of a broken file name.
    assert fingerprint_data(Corpus("d", "\ud800" * 30, "a")) is not None


def test_the_corpora_of_the_course_are_the_same_on_every_computer():
    """A run on Playhouse may go on elsewhere: its text is made anew there, and must be the same."""
    fingerprint = fingerprint_data(load_corpus("playhouse"))
    assert fingerprint["size"] > 1_100_000
    assert (fingerprint["hashes"][0], fingerprint["hashes"][-1]) == (
        "4c35039e6c71d695",
        "ab8da796932d1b0a",
    )
    assert CharTokenizer.from_text(TEXT).vocab_size > 40
