"""Scores of samples: each number against a brute-force count, texts made by hand, and real text damaged on purpose."""

import os
import random
import re
import time
from collections import Counter
from difflib import SequenceMatcher
from pathlib import Path

import pytest

from chargpt_lib.data import Corpus, load_corpus
from chargpt_lib.playhouse import score_plays, write
from chargpt_lib.quality import (
    HEADINGS,
    NOISE_ROW,
    PAIRS,
    REFERENCE_ROW,
    Quality,
    _blocks_of,
    _find_speech,
    _learn,
    _partners,
    _passages_of,
    _scrambled,
    _shape,
    _speakers,
    _suffix_automaton,
    compare,
    distinct,
    longest_copy,
    quality,
    quality_table,
    share,
    words_of,
)

SCENES = write(60_000, seed=1).text
PLAYS = Corpus("plays", SCENES, write(12_000, seed=2).text)
VERSES = Corpus(
    "verses",
    "ANNE:\nWhere is the goose?\nGone: all gone.\n\nFIRST LORD:\nIt's here.\n\nANNE:\nO damp goose!\n\n"
    * 9,
    "ANNE:\nHere it is.\n\n" * 9,
)
NOVEL = Corpus(
    "novel",
    'The hen sat (in the rain).\nIt was wet.\n\n"Who is it?" said the hen. "A goose?"\n\n' * 9,
    "The goose was a hen.\n\n" * 9,
)
GAP = r"\n\s*\n"


def texts(letters, count, longest, seed=0):
    dice = random.Random(seed)
    return [
        "".join(dice.choice(letters) for _ in range(dice.randrange(longest))) for _ in range(count)
    ]


# ---------------------------------------------------------------- words


def words_by_hand(text):
    """One character after the other."""
    words, word = [], ""
    for i, char in enumerate(text):
        inner = char in "'’" and word and i + 1 < len(text) and text[i + 1].isalpha()
        if char.isalpha() or inner:
            word += char
        elif word:
            words.append(word.lower())
            word = ""
    return words + [word.lower()] * bool(word)


@pytest.mark.parametrize(
    "text", texts("aB'’é .-1\n", 200, 30) + ["", "'", "it''s", "o'er'", "Know't, thou", "x2y_z"]
)
def test_words(text):
    assert words_of(text) == words_by_hand(text)


@pytest.mark.parametrize("n", [1, 2, 4])
def test_distinct_runs(n):
    for text in texts("abc", 100, 20, seed=n):
        runs = ["|".join(text[i : i + n]) for i in range(len(text) - n + 1)]
        assert distinct(list(text), n) == (len(Counter(runs)) / len(runs) if runs else None)


def test_known_answers():
    assert distinct("a b c a b c a b".split()) == 3 / 5
    assert distinct(["a"] * 103) == 1 / 100
    assert distinct(["a"] * 3) is None and distinct(["a"] * 4) == 1
    assert (
        share([]) is None
        and share([True, False, False, False]) == 0.25
        and share(iter([False])) == 0
    )


# ---------------------------------------------------------------- copied


def substrings(text):
    return {text[i:j] for i in range(len(text)) for j in range(i, len(text) + 1)}


@pytest.mark.parametrize("letters", ["a", "ab", "abc", "abcdefgh\n "])
def test_the_longest_copy_is_the_longest(letters):
    for sample, text in zip(texts(letters, 150, 25, seed=1), texts(letters, 150, 40, seed=2)):
        common = substrings(sample) & substrings(text) | {""}
        longest = max(map(len, common))
        best = [part for part in common if len(part) == longest]
        assert longest_copy(sample, text) == min(best, key=text.find)


def test_the_automaton_holds_everything_and_nothing_else():
    for sample in texts("ab", 40, 12, seed=3):
        steps, links, lengths = _suffix_automaton(sample)
        paths, ahead = {""}, [(0, "")]
        while ahead:
            state, path = ahead.pop()
            ahead += [(after, path + char) for char, after in steps[state].items()]
            paths |= {path + char for char in steps[state]}
        assert paths == substrings(sample) | {""}
        assert len(steps) <= max(2 * len(sample), 2)


def test_the_longest_copy_against_difflib():
    sample, text = PLAYS.val[:1500], PLAYS.train[:4000]
    match = SequenceMatcher(None, sample, text, autojunk=False).find_longest_match()
    assert len(longest_copy(sample, text)) == match.size > 20


@pytest.mark.parametrize(
    "sample, text, wanted",
    [
        ("", "abc", ""),
        ("abc", "", ""),
        ("abc", "xyz", ""),
        ("abc", "abc", "abc"),
        ("xabcx", "yabcyabc", "abc"),
        ("abcd", "cdab", "cd"),
        ("aaa", "aaaaa", "aaa"),
        ("ab ab ab", "ab ab", "ab ab"),
        ("Goose", "goose", "oose"),
    ],
)
def test_copies_by_hand(sample, text, wanted):
    assert longest_copy(sample, text) == wanted


def test_a_hidden_passage_is_found_at_its_full_length():
    passage = SCENES[20_000:20_400]
    sample = _scrambled(SCENES, 3000)
    sample = sample[:1000] + "$" + passage + "$" + sample[1000:]
    assert longest_copy(sample, SCENES) == passage
    assert (
        len(longest_copy(sample.replace(passage, passage[:199] + "$" + passage[200:]), SCENES))
        == 200
    )


@pytest.mark.parametrize("text", ["a" * 10**6, ("a" * 99 + "b") * 10**4, _scrambled("ACGT", 10**6)])
def test_no_text_is_slow(text):
    start = time.process_time()
    longest_copy(("a" * 100 + "b") * 99, text)
    assert time.process_time() - start < 20


# ---------------------------------------------------------------- form


@pytest.mark.parametrize(
    "text, blocks",
    [
        ("", []),
        (" \n\n ", []),
        ("a", ["a"]),
        ("a\n\nb", ["a"]),
        ("a\n\nb\n", ["a", "b"]),
        ("a\nb\n\n\n\nc\n", ["a\nb", "c"]),
        ("\n\na\n \nb\n\n", ["a", "b"]),
    ],
)
def test_blocks(text, blocks):
    assert _blocks_of(text, GAP) == blocks


@pytest.mark.parametrize(
    "block, above, before",
    [
        ("ANNE:\nO goose!", ["ANNE"], []),
        ("Anne: O goose!\nHal: What?", [], ["Anne", "Hal"]),
        ("First Lord:", ["First Lord"], []),
        ("O goose!\nANNE:\nWhat?", [], []),
        ("It is late: so late\nthat", [], ["It is late"]),
        (": no", [], []),
        ("", [], []),
        ("x" * 41 + ":\nno", ["x" * 41], []),
        ("x" * 42 + ":\nno", [], []),
        ("A: b: c", [], ["A"]),
        (" A: b", [], []),
    ],
)
def test_speakers(block, above, before):
    assert _speakers(block, "above") == above
    assert _speakers(block, "before") == before
    assert _speakers(block, None) == []


@pytest.mark.parametrize(
    "blocks, speech",
    [
        (["A:\nb", "C:\nd"], "above"),
        (["A: b", "C: d\ne"], "before"),
        (["A b", "C d"], None),
        ([], None),
        (["A: b", "no"], "before"),
        (["A: b", "no", "no"], None),
        (["A:\nB: c", "A:\nb"], "above"),
    ],
)
def test_where_names_stand(blocks, speech):
    assert _find_speech(blocks) == speech


@pytest.mark.parametrize(
    "block, speech, wanted",
    [
        ("A barn. Enter Meg.\nMeg: O!\nMeg: So?\nExit Meg.", "before", "ESX"),
        ("Meg: O!\nA barn.", "before", "ST"),
        ("Meg: Enter Hal", "before", "S"),
        ("Exeunt.\nExits", "before", "XT"),
        ("Entering", "before", "T"),
        ("ANNE:\nO\nso: what", "above", "NT"),
        ("ANNE:", "above", "N"),
        ("O\nANNE:\nso", "above", "T"),
        ("a\nb", None, "T"),
    ],
)
def test_shapes(block, speech, wanted):
    assert _shape(block, speech) == wanted


def test_what_training_texts_tell():
    plays, verses, novel = (_learn(corpus.train) for corpus in (PLAYS, VERSES, NOVEL))
    assert (plays.speech, plays.shapes, plays.pairs) == ("before", {"ESX"}, ("''",))
    assert plays.names == set(re.findall(r"^(\w+): ", SCENES, re.M))
    assert (verses.speech, verses.names, verses.shapes, verses.pairs) == (
        "above",
        {"ANNE", "FIRST LORD"},
        {"NT"},
        (),
    )
    assert (novel.speech, novel.names, novel.pairs) == (None, frozenset(), ("()", '""'))


def test_a_rare_shape_is_not_usual():
    often, seldom = "Meg: O!\nHal: So?\n\n", "Meg: O!\nExit Meg.\n\n"
    assert _learn(often * 96 + seldom * 4).shapes == {"S"}
    assert _learn(often * 95 + seldom * 5).shapes == {"S", "SX"}


def test_marks_that_the_text_itself_leaves_open_do_not_count():
    whole, half = "A goose (a hen).\n\n", "A goose (a hen.\n\n"
    assert _learn(whole * 19 + half * 2).pairs == ("()",)
    assert _learn(whole * 19 + half * 3).pairs == ()


def test_without_empty_lines_each_line_is_a_block():
    chat = Corpus("chat", "ann: hi\nbob: well, hello\nann: bye\n" * 9, "bob: hi\n")
    assert quality("ann: hello\nzed: hi\nnobody\n", chat)[:3] == (3 / 5, 1 / 2, 2 / 3)


@pytest.mark.parametrize(
    "name, speech, shapes", [("shakespeare", "above", {"NT"}), ("oz", None, {"T"})]
)
def test_the_books(name, speech, shapes):
    if not any(Path(os.environ.get("CHARGPT_DATA", "nowhere")).glob("*.txt")):
        pytest.skip("the books are not here: CHARGPT_DATA")
    corpus = load_corpus(name)
    known = _learn(corpus.train)
    assert (known.speech, known.shapes) == (speech, shapes)
    start = corpus.train.index("\n\n", 90_000)
    rows = compare(
        {"trained on": corpus.train[start : corpus.train.index("\n\n", start + 5000)]}, corpus
    )
    assert rows["trained on"].words == 1 and rows["trained on"].copied >= 5000
    for field in ("words", "structure", "ended"):
        value = getattr(rows[REFERENCE_ROW], field)
        assert value is None or value > 0.85 and getattr(rows[NOISE_ROW], field) < 0.45
    assert ("ROMEO" in known.names) == (name == "shakespeare") and len(known.names) < 400


# ---------------------------------------------------------------- punctuation


def partners_by_deleting(text, pair):
    """Deletes innermost pairs until there are none."""
    total, met = sum(map(text.count, pair)), 0
    while (
        shorter := re.sub(
            rf"{re.escape(pair[0])}([^{re.escape(pair)}]*){re.escape(pair[1])}", r"\1", text
        )
    ) != text:
        met, text = met + len(text) - len(shorter), shorter
    return met, total


@pytest.mark.parametrize("pair", [pair for pair in PAIRS if pair[0] != pair[1]])
def test_brackets(pair):
    for text in texts(pair + " .", 200, 12, seed=4):
        assert _partners(text, pair) == partners_by_deleting(text, pair), text


@pytest.mark.parametrize(
    "text, pair, wanted",
    [
        ('"Who?" said she. "I!"', '""', (4, 4)),
        ('"Who? said she', '""', (0, 1)),
        ('Who?" said she', '""', (0, 1)),
        ('Who?" said "she', '""', (0, 2)),
        ('no--"yes," he said--"no"', '""', (4, 4)),
        ('("so")', '""', (2, 2)),
        ("As eels say, 'The moon sings.'", "''", (2, 2)),
        ("As eels say, 'The moon sings.", "''", (0, 1)),
        ("Meg's goose isn't 'ours'", "''", (2, 2)),
        ("Meg’s ‘goose’", "‘’", (2, 2)),
        ("o' th' wood", "''", (0, 2)),
        ("'Tis", "''", (0, 1)),
        ('" a"', '""', (0, 2)),
        ('so,"no," he', '""', (0, 2)),
        ('" \' "', '""', (0, 2)),
        ("", "()", (0, 0)),
        ("none", '""', (0, 0)),
    ],
)
def test_quotes(text, pair, wanted):
    assert _partners(text, pair) == wanted


@pytest.mark.parametrize(
    "passage, ends",
    [
        ("So it is.", 1),
        ("So it is", 0),
        ("Is it?'", 1),
        ('"It is!")', 1),
        ("It is. Or", 0),
        ("It is.  ", 1),
        ("It is,'", 0),
        ("Mr. X", 0),
        ("It is…", 0),
    ],
)
def test_the_end_of_a_passage(passage, ends):
    assert quality(passage, NOVEL).ended == ends


def test_passages():
    assert _passages_of("A barn.\nMeg: So?", "before") == ["A barn.", "Meg: So?"]
    assert _passages_of("ANNE:\nSo?\nO: so.", "above") == ["So?\nO: so."]
    assert _passages_of("ANNE:", "above") == _passages_of(
        "ANNE:\n ", "above"
    ) == [] and _passages_of("So\nis it.", "above") == ["So\nis it."]
    assert _passages_of("So\nis it.", None) == ["So\nis it."]


# ---------------------------------------------------------------- the score, on texts made by hand


def test_a_scene_by_hand():
    scene = (
        "A barn. Enter Meg and Hal with a damp goose.\nMeg: O damp gloose!\nZorg: As hens say, 'The owl naps.\n"
        "Hal: You odd owl\nExit Hal, riding the goose.\n\n"
    )
    words = words_by_hand(scene)
    assert quality(scene + "Meg: You odd owl!\n\n", PLAYS) == Quality(
        words=(len(words) + 4 - 2) / (len(words) + 4),
        speakers=3 / 4,
        structure=1 / 2,
        ended=5 / 6,
        closed=0.0,
        distinct=1.0,
        copied=len(longest_copy(scene, SCENES)),
    )


def test_verses_by_hand():
    sample = "ANNE:\nWhere is it\n\nSECOND LORD:\nIt's gone.\n\nO goose!\n\nFIRST LORD:\n\n"
    assert quality(sample, VERSES) == Quality(
        words=10 / 12,
        speakers=2 / 3,
        structure=2 / 4,
        ended=2 / 3,
        closed=None,
        distinct=1.0,
        copied=len("ANNE:\nWhere is "),
    )


def test_a_novel_by_hand():
    sample = 'The hen sat (in the rain.\n\n"A goose?" said the hat.\n\nIt was\n'
    assert quality(sample, NOVEL) == Quality(
        words=12 / 13,
        speakers=None,
        structure=None,
        ended=2 / 3,
        closed=2 / 3,
        distinct=1.0,
        copied=len("The hen sat (in the rain"),
    )


def test_real_text_is_at_the_top_and_what_is_broken_in_it_is_counted():
    """Damage that is done once costs exactly its share, and nothing elsewhere."""
    sample = PLAYS.val
    real, lines = (
        quality(sample, PLAYS),
        sample.rstrip().count("\n") + 1 - sample.rstrip().count("\n\n"),
    )
    speeches, scenes = len(re.findall(r"^\w+: ", sample, re.M)), sample.rstrip().count("\n\n") + 1
    assert real.words > 0.98 and real[1:5] == (1, 1, 1, 1) and 0.7 < real.distinct < 1

    def cost(field, old, new):
        assert old in sample
        score = quality(sample.replace(old, new, 1), PLAYS)
        others = {
            name for name in Quality._fields[:5] if getattr(score, name) != getattr(real, name)
        } - {field}
        return getattr(real, field) - getattr(score, field), others

    name, other = re.search(r"^(\w+): ", sample, re.M)[1], "Zedd"
    assert cost("speakers", f"\n{name}: ", f"\n{other}: ") == (
        pytest.approx(1 / speeches),
        {"words"},
    )
    assert cost("words", " with ", " wiht ") == (
        pytest.approx(1 / len(words_by_hand(sample))),
        set(),
    )
    assert cost("structure", "\nExit ", "\nThe ") == (pytest.approx(1 / scenes), set())
    assert cost("ended", "!\n", "\n") == (pytest.approx(1 / lines), set())
    assert cost("closed", ".'\n", ".\n") == (
        pytest.approx(1 / (2 * len(re.findall(" '", sample)) - 1)),
        set(),
    )


def test_speakers_and_words_as_score_plays_counts_them():
    """Where everybody is on the stage, the older judge of Playhouse agrees."""
    sample = PLAYS.val.replace("goose", "gloose")
    judged = score_plays(f"x {sample} x", frozenset(re.findall("[A-Za-z]+", SCENES)))
    score = quality(sample, PLAYS)
    assert score.words == pytest.approx(judged["words"]) and score.words < 1
    assert score.speakers == judged["speakers"] == 1


def test_a_copy_is_perfect_and_says_so():
    start = SCENES.index("\n\n") + 2
    score = quality(SCENES[start : start + 5000], PLAYS)
    assert score[:5] == (1, 1, 1, 1, 1) and score.copied == 5000


def test_what_the_end_cuts_off_is_no_fault():
    whole = PLAYS.val[: PLAYS.val.index("\n\n", 1000) + 2]
    for length in range(len(whole) - 150, len(whole)):
        score = quality(whole[:length], PLAYS)
        assert whole[length - 1] == "\n" or score[1:5] in ((1, 1, 1, 1), (1, 1, 1, None)), whole[
            :length
        ][-80:]


# ---------------------------------------------------------------- what may go wrong


@pytest.mark.parametrize("corpus", [PLAYS, VERSES, NOVEL], ids=lambda corpus: corpus.name)
def test_small_samples(corpus):
    plain = corpus is not NOVEL
    assert quality("goose", corpus) == Quality(
        1.0, None, 0.0 if plain else None, 0.0, None, None, 5
    )
    assert quality("\n\n", corpus) == Quality(None, None, None, None, None, None, 2)
    assert (
        quality("?! 12", corpus)[:2] == (None, None) and quality("?! 12", corpus).distinct is None
    )
    assert quality("🦢", corpus) == Quality(None, None, 0.0 if plain else None, 0.0, None, None, 0)


def test_a_text_without_spaces_has_no_words():
    genome = Corpus("genome", _scrambled("ACGT", 5000), _scrambled("ACGT", 500, seed=2))
    score = quality("ACGTACGT", genome)
    assert _learn(genome.train).words is None and score.words is None and score.distinct is None
    assert score.copied == len(longest_copy("ACGTACGT", genome.train)) >= 4
    rows = compare({"a": "ACGT" * 40}, genome)
    assert [row.words for row in rows.values()] == [None] * 3 and "–" in quality_table(rows)


@pytest.mark.parametrize("sample", ["", None, 3, ["goose"], b"goose"])
def test_no_sample(sample):
    with pytest.raises(ValueError, match="it must be a text of one character or more"):
        quality(sample, PLAYS)
    with pytest.raises(ValueError, match="the sample 'mine'"):
        compare({"fine": "goose", "mine": sample}, PLAYS)


@pytest.mark.parametrize("corpus", ["playhouse", None, Corpus("empty", "", "")])
def test_no_corpus(corpus):
    with pytest.raises(ValueError, match="it must be a Corpus"):
        quality("goose", corpus)


# ---------------------------------------------------------------- side by side


def test_the_rows_are_of_one_length():
    rows = compare({"long": SCENES[:5000], "short": SCENES[:700]}, PLAYS, seed=3)
    assert list(rows) == [REFERENCE_ROW, "long", "short", NOISE_ROW]
    assert rows["long"] == rows["short"] == quality(SCENES[:700], PLAYS)
    assert rows[REFERENCE_ROW] == quality(PLAYS.val[:700], PLAYS)
    assert rows[NOISE_ROW] == quality(_scrambled(SCENES, 700, seed=3), PLAYS)
    short = PLAYS._replace(val=PLAYS.val[:300])
    assert compare({"long": SCENES[:5000]}, short)["long"].copied == 300
    assert list(compare({}, short)) == [REFERENCE_ROW, NOISE_ROW]


@pytest.mark.parametrize("name", [REFERENCE_ROW, NOISE_ROW])
def test_no_sample_takes_the_place_of_a_measure(name):
    with pytest.raises(ValueError, match="give the sample another"):
        compare({name: "goose"}, PLAYS)


def test_noise_has_the_frequencies_of_the_text_and_no_order():
    noise, n = _scrambled(SCENES, 20_000), 20_000
    shares, counts = Counter(SCENES), Counter(noise)
    for char in shares:
        p = shares[char] / len(SCENES)
        assert abs(counts[char] - n * p) < 5 * (n * p * (1 - p)) ** 0.5 + 3, char
    p = (shares["e"] / len(SCENES)) * (shares[" "] / len(SCENES))
    assert abs(noise.count("e ") - n * p) < 5 * (n * p) ** 0.5
    assert (
        noise == _scrambled(SCENES, n) != _scrambled(SCENES, n, seed=1)
        and _scrambled("ab", 0) == ""
    )


def test_the_table():
    rows = {
        "mine": Quality(0.9375, 1.0, None, 0.0, None, 0.5, 12),
        "a longer name": Quality(None, *[0.0404] * 5, 10_000),
    }
    lines = quality_table(rows).split("\n")
    assert len(set(map(len, lines))) == 1 and all(
        line.startswith("| ") and line.endswith(" |") for line in lines
    )
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert tuple(cells[0]) == HEADINGS and all(set(cell) <= set("-:") for cell in cells[1])
    assert cells[2] == ["mine", "93.8%", "100.0%", "–", "0.0%", "–", "50.0%", "12"]
    assert cells[3] == ["a longer name", "–", *["4.0%"] * 5, "10000"]
    assert len(HEADINGS) == 1 + len(Quality._fields)
