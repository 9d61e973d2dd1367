"""The race: its counts by brute force, nothing seen before a window, the exact loss, and all of it in small."""

import json
import time
from collections import Counter
from dataclasses import asdict
from math import log

import pytest
import torch
from torch.nn import functional as F

from chargpt_lib.bigram import NGramModel
from chargpt_lib.modern import ModernConfig, ModernGPT
from chargpt_lib.recipe import get_lr
from chargpt_lib.training import evaluate, per_token_loss
from tests.benchmarks import race
from tests.benchmarks.race_counts import (
    NGramCounts,
    confidence,
    log_increments,
    recent_counts,
)
from tests.tiny import CORPUS, IDS, TOKENIZER, VAL

V = TOKENIZER.vocab_size
ORDERS = (0, 1, 2, 4)
SIZES = {
    "vocab_size": V,
    "block_size": 24,
    "n_layer": 2,
    "n_head": 2,
    "n_embd": 16,
    "softcap": 0.0,
    "tied": False,
}


def counting_gpt(**changes):
    """A tiny CountingGPT whose transformer and gates already say something."""
    torch.manual_seed(0)
    counts = NGramCounts(IDS, V, ORDERS, n_folds=5)
    config = ModernConfig(**SIZES | changes)
    model = race.CountingGPT(config, reach=8, counts=counts, recent_orders=(1, 3), recent_gate=0.3)
    for parameter in model.parameters():
        if parameter.dim() == 2:
            torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()


def count_by_hand(ids, places, context):
    """How often each character came after a context, a list, at some places of a text -> (V,)."""
    counts = torch.zeros(V)
    n = len(context)
    for place in places:
        first = place - n + 1
        if first >= 0 and ids[first : place + 1] == context:
            counts[ids[place + 1]] += 1
    return counts


def test_counts_of_any_text_are_those_of_the_whole_training_text():
    ids = IDS[:400]
    counts = NGramCounts(ids, V, ORDERS, n_folds=5).in_windows(VAL[:24][None])
    text = ids.tolist()
    window = VAL[:24].tolist()
    for k, order in enumerate(ORDERS):
        for t in range(24):
            expected = torch.zeros(V)
            if t >= order - 1:
                context = window[t - order + 1 : t + 1]
                expected = count_by_hand(text, range(len(text) - 1), context)
            assert torch.equal(counts[k, 0, t], expected), (order, t)


def test_a_training_text_is_counted_without_its_own_fold():
    ids = IDS[:400]
    n_places = len(ids) - 1
    n_folds = 5
    text = ids.tolist()
    fold = [place * n_folds // n_places for place in range(n_places)]
    places = torch.stack([torch.arange(70, 94), torch.arange(300, 324)])
    counts = NGramCounts(ids, V, ORDERS, n_folds).in_training_windows(places)
    for k, order in enumerate(ORDERS):
        for row, window in enumerate(places.tolist()):
            for t, place in enumerate(window):
                expected = torch.zeros(V)
                if t >= order - 1:
                    others = [p for p in range(n_places) if fold[p] != fold[place]]
                    context = text[place - order + 1 : place + 1]
                    expected = count_by_hand(text, others, context)
                assert torch.equal(counts[k, row, t], expected), (order, place)


def test_recent_counts_are_the_last_occurrences_in_the_window():
    window = VAL[:60].tolist()
    counts = recent_counts(VAL[:60][None], 2, V, n_recent=3)[0]
    for t in range(60):
        context = window[t - 1 : t + 1]
        earlier = [s for s in range(1, t) if t > 0 and window[s - 1 : s + 1] == context]
        expected = Counter(window[s + 1] for s in earlier[-3:])
        found = {i: int(n) for i, n in enumerate(counts[t]) if n > 0}
        assert found == expected, t


def test_the_chain_is_the_backoff_of_lesson_01():
    n = 4
    counts = NGramCounts(IDS, V, tuple(range(n)), n_folds=5).in_windows(VAL[:40][None])
    changes, p = log_increments(counts, n_chain=n)
    # The first order changes equal chances.
    assert torch.allclose((changes.sum(0) - log(V)).exp(), p, atol=1e-6)
    assert torch.allclose(p.sum(-1), torch.ones(1, 40), atol=1e-5)
    groups = VAL[:41].unfold(0, n, 1)  # three characters and the next one
    expected = NGramModel(IDS, n, V).probability(groups)
    found = p[0, n - 2 :].gather(1, groups[:, -1:])[:, 0]
    # Lesson 01 counts the very first character, too, which nothing comes before.
    assert torch.allclose(found.double(), expected, atol=1e-5)


def test_confidence_says_how_often_and_how_evenly():
    counts = torch.zeros(1, 1, 2, V)
    counts[0, 0, 1, :2] = torch.tensor([3.0, 1.0])
    never, seen = confidence(counts)[0].tolist()
    assert never == [0, 0, 0]
    assert seen == pytest.approx([torch.tensor(5.0).log().item(), 0.5, 0.75])


def test_orders_too_large_for_64_bits_are_refused():
    with pytest.raises(ValueError, match="order 12 is too large"):
        NGramCounts(IDS, V, (0, 12))


@pytest.mark.parametrize("T", [5, 8, 20, 24])
def test_local_attention_sees_its_own_chunk_and_the_one_before(T):
    torch.manual_seed(0)
    attention = race.LocalAttention(ModernConfig(**SIZES), reach=8)
    rotation = race.rope_cos_sin(torch.arange(T)[:, None], 8)
    x = torch.randn(1, T, 16)
    before = attention(x, rotation)
    for changed in range(T):
        other = x.clone()
        other[0, changed] += 1
        differs = (attention(other, rotation) != before).any(-1)[0].nonzero().flatten().tolist()
        chunk = changed // 8
        assert differs == list(range(changed, min(8 * chunk + 16, T)))


def test_local_attention_is_the_modern_one_while_a_text_is_short():
    torch.manual_seed(0)
    config = ModernConfig(**SIZES)
    torch.manual_seed(0)
    whole = ModernGPT(config)
    torch.manual_seed(0)
    local = race.LocalGPT(config, reach=24)
    x = torch.randn(2, 20, 16)
    rotation = race.rope_cos_sin(torch.arange(20)[:, None], 8)
    for theirs, ours in zip(whole.blocks, local.blocks):
        ours.load_state_dict(theirs.state_dict())
        assert torch.allclose(theirs(x, rotation), ours(x, rotation), atol=1e-5)


def test_the_future_changes_no_prediction():
    model = counting_gpt()
    idx = VAL[:24][None]
    with torch.no_grad():
        logits, _ = model(idx)
        for T in (1, 2, 7, 16, 23):
            shorter, _ = model(idx[:, :T])
            assert torch.allclose(shorter, logits[:, :T], atol=1e-4), T


def test_nothing_before_a_window_changes_its_losses():
    model = counting_gpt()
    T = model.block_size
    losses = per_token_loss(model, VAL[: 4 * T])
    changed = VAL[: 4 * T].clone()
    changed[: 2 * T] = changed[: 2 * T].flip(0)
    others = per_token_loss(model, changed)
    # The loss at i is that of character i + 1; the third window reads from 2 T on.
    assert not torch.allclose(others[: 2 * T - 1], losses[: 2 * T - 1], atol=1e-2)
    assert torch.allclose(others[2 * T :], losses[2 * T :], atol=1e-4)


def test_without_a_transformer_the_counts_alone_decide():
    torch.manual_seed(0)
    counts = NGramCounts(IDS, V, ORDERS, n_folds=5)
    config = ModernConfig(**SIZES)
    model = race.CountingGPT(config, 8, counts, recent_orders=(3,), recent_gate=0.0)
    idx = VAL[:24][None]
    _, p = log_increments(counts.in_windows(idx), len(ORDERS))
    logits, _ = model.eval()(idx)
    assert torch.allclose(logits.softmax(-1), p, atol=1e-5)


def test_the_loss_of_the_race_is_the_exact_loss():
    model = counting_gpt()
    by_hand = 0.0
    with torch.no_grad():
        for start in range(0, len(VAL) - 1, model.block_size):
            x = VAL[start : start + model.block_size]
            y = VAL[start + 1 : start + model.block_size + 1]
            logits, _ = model(x[: len(y)][None])
            by_hand += F.cross_entropy(logits[0], y, reduction="sum").item()
    by_hand /= len(VAL) - 1
    assert race.exact_loss(model, VAL) == pytest.approx(by_hand, abs=1e-5)
    assert race.exact_loss(model, VAL) == pytest.approx(evaluate(model, VAL), abs=1e-6)


@pytest.mark.parametrize("draw", [race.random_starts, race.shuffled_starts])
def test_windows_lie_in_the_text(draw):
    for n_ids in (18, 40, 101):
        starts = draw(n_ids, 16, torch.Generator().manual_seed(0))
        drawn = [next(starts) for _ in range(200)]
        assert min(drawn) >= 0 and max(drawn) + 16 <= n_ids - 1
        assert len(set(drawn)) > 1


def test_an_epoch_reads_the_text_once():
    starts = race.shuffled_starts(16 * 10, 16, torch.Generator().manual_seed(0))
    epoch = sorted(next(starts) for _ in range(9))
    assert {later - earlier for earlier, later in zip(epoch, epoch[1:])} == {16}


def test_the_tenth_is_the_end_of_the_training_text():
    train, tenth = race.split_corpus("playhouse", "tenth")
    whole, val = race.split_corpus("playhouse", "validation")
    assert train + tenth == whole
    assert len(tenth) == pytest.approx(len(whole) / 10, abs=1)
    assert val not in whole


@pytest.fixture
def corpus_file(tmp_path):
    path = tmp_path / "plays.txt"
    path.write_text(CORPUS.train + CORPUS.train[:600], encoding="utf-8")
    return str(path)


def test_a_quick_race_from_end_to_end(tmp_path, corpus_file, capsys):
    out = tmp_path / "race.json"
    command = ["--quick", "--budget", "0.1", "--corpus", corpus_file, "--out", str(out)]
    command += ["--threads", "1"]
    race.main(command)
    record = json.loads(out.read_text(encoding="utf-8"))
    assert list(record["runs"]) == list(race.ENTRANTS)
    for name, rows in record["runs"].items():
        (row,) = rows
        # The first step may take longer than all of so short a run.
        assert row["steps"] >= 1 and row["seconds"] >= 0.1
        assert row["curve"][-1]["loss"] == row["loss"]
        assert row["curve"][-1]["steps"] == row["steps"]
        assert 0 < row["loss"] < 5, name
        assert row["versions"]["torch"] == torch.__version__
    printed = capsys.readouterr().out
    assert "| everything |" in printed and "not measured yet" in printed

    # What is recorded is not run again.
    race.main(command)
    assert json.loads(out.read_text(encoding="utf-8")) == record

    race.main(["plot", "--out", str(out)])
    assert out.with_suffix(".svg").read_text(encoding="utf-8").startswith("<?xml")


def test_the_entrants_for_a_card_run_in_small(tmp_path, corpus_file):
    out = tmp_path / "race.json"
    command = ["--quick", "--card", "--budget", "0.1", "--corpus", corpus_file]
    race.main([*command, "--out", str(out), "--threads", "1"])
    record = json.loads(out.read_text(encoding="utf-8"))
    assert list(record["runs"]) == list(race.CARD_ENTRANTS)


def test_without_a_card_its_rows_stay_as_they_are(capsys):
    if torch.cuda.is_available():
        pytest.skip("there is a card")
    race.main(["--card"])
    assert "not measured yet" in capsys.readouterr().out


WITHOUT_STEPS = [name for name in race.ENTRANTS if "steps" not in race.ENTRANTS[name].training]


@pytest.mark.parametrize("name", WITHOUT_STEPS)
def test_the_time_alone_ends_a_schedule(name):
    """After however many steps, half of the time leaves a rate to train with, and the end of it hardly any."""
    config = race.train_config(race.ENTRANTS[name], 1337, 180.0)
    assert get_lr(100_000, config, 0.4) > config.learning_rate / 2
    assert get_lr(100_000, config, 1.0) <= config.learning_rate / 10


def test_nanogpt_ends_after_the_steps_of_its_own_settings():
    assert [name for name in race.ENTRANTS if name not in WITHOUT_STEPS] == ["nanoGPT"]
    assert race.train_config(race.ENTRANTS["nanoGPT"], 1337, 180.0).steps == 2000
    entrant = race.find_entrant("nanoGPT", quick=True, changes={"training": {"steps": 3}})
    entrant.model["vocab_size"] = V
    clock = race.Clock(time.time(), cpu=False)
    _, snapshots, about = race.train(entrant, IDS, 1337, 600.0, clock, torch.device("cpu"))
    assert about["steps"] == 3 and about["seconds"] < 300
    assert [steps for _, steps, _ in snapshots] == [3]


def test_an_unknown_entrant_is_refused(capsys):
    with pytest.raises(SystemExit):
        race.main(["--entrants", "GPT-5"])
    assert "there is no entrant 'GPT-5'" in capsys.readouterr().err


def test_the_readme_quotes_the_record():
    record = json.loads(race.OUT.read_text(encoding="utf-8"))
    readme = (race.OUT.parent / "README.md").read_text(encoding="utf-8")
    wanted = race.table(record)
    assert wanted in readme, f"put this into data/results/README.md:\n{wanted}"
    said = race.leads(record)
    assert said in readme, f"data/results/README.md should say: {said}"
    # The search is told.
    assert len(record["search of the prototype"]["rows"]) > 20


def test_the_recorded_race_is_won_by_as_much_as_promised():
    record = json.loads(race.OUT.read_text(encoding="utf-8"))
    loss = {}
    for name in race.ENTRANTS:
        rows = record["runs"][name]
        assert [row["seed"] for row in rows] == list(race.SEEDS)
        assert all(row["settings"] == asdict(race.find_entrant(name)) for row in rows)
        loss[name] = race.mean_loss(record, name)
    assert loss["everything"] <= 1.45
    assert loss["transformer"] <= 1.56
    assert loss["everything"] <= loss["nanoGPT"] - 0.40
    assert loss["everything"] <= loss["nanoGPT, tuned"] - 0.17
    # As the README and lesson 16 say.
    baby = f"seconds to {race.BABY_README}"
    assert all(row[baby] < 20 for row in record["runs"]["everything"])
    assert all(row["seconds"] < 90 for row in record["runs"]["nanoGPT"])
