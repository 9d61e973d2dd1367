"""How the exercises of lesson 14 are judged: cases, mistakes, symptoms."""

import math
import re

from chargpt_lib.exercises.answers.bpe import (
    bits_per_character,
    encode_word,
    split_at_specials,
    utf8_length,
    whole_characters,
)
from chargpt_lib.exercises.judge import exercise

# ---------------------------------------------------------------- utf8_length


def utf8_length_cases(draw):
    latin = [draw.integer(32, 126) for _ in range(draw.integer(3, 5))]
    accents = [draw.integer(200, 2000) for _ in range(draw.integer(1, 2))]
    chinese = [draw.integer(0x4E00, 0x9FFF) for _ in range(draw.integer(1, 2))]
    emoji = [draw.integer(0x1F300, 0x1FAFF) for _ in range(draw.integer(1, 2))]
    borders = [0, 127, 128, 2047, 2048, 65_535, 65_536, 1_114_111]
    return [
        [latin],
        [latin + accents],
        [chinese],
        [emoji],
        *[[[number]] for number in borders],
        [emoji + latin + chinese + accents],
        [[]],
    ]


UTF8_LENGTH = exercise(utf8_length, stars=1, minutes=4, cases=utf8_length_cases)


### BEGIN SOLUTION
@UTF8_LENGTH.mistake("at a border: 128 = 2^7 has 8 binary digits already, so `<`, not `<=`")
def utf8_length_border(numbers):
    length = 0
    for number in numbers:
        if number <= 2**7:
            length += 1
        elif number <= 2**11:
            length += 2
        elif number <= 2**16:
            length += 3
        else:
            length += 4
    return length


@UTF8_LENGTH.mistake(
    "a byte is given 8 binary digits; UTF-8 needs some of them to mark where a character begins"
)
def utf8_length_eight_digits(numbers):
    length = 0
    for number in numbers:
        if number < 2**8:
            length += 1
        elif number < 2**16:
            length += 2
        else:
            length += 3
    return length


@UTF8_LENGTH.mistake(
    "7, 11 and 16 are numbers of binary digits: the number with 7 ones is 2^7 - 1 = 127"
)
def utf8_length_digits_for_numbers(numbers):
    length = 0
    for number in numbers:
        if number <= 7:
            length += 1
        elif number <= 11:
            length += 2
        elif number <= 16:
            length += 3
        else:
            length += 4
    return length


@UTF8_LENGTH.mistake(
    "a small number passes all the tests, and is counted at each: `elif`, not `if`"
)
def utf8_length_if_for_elif(numbers):
    length = 0
    for number in numbers:
        if number < 2**7:
            length += 1
        if number < 2**11:
            length += 2
        if number < 2**16:
            length += 3
        else:
            length += 4
    return length


@UTF8_LENGTH.mistake("that is the number of characters; many of them take several bytes")
def utf8_length_in_characters(numbers):
    return len(numbers)


@UTF8_LENGTH.mistake("characters from number 65,536 on, such as emoji, take four bytes")
def utf8_length_three_at_most(numbers):
    length = 0
    for number in numbers:
        if number < 2**7:
            length += 1
        elif number < 2**11:
            length += 2
        else:
            length += 3
    return length


### END SOLUTION


# ---------------------------------------------------------------- encode_word


def encode_word_merges(draw, letters, n):
    """n pairs as a training finds them, from frequent and from rare ones.

    Each pair is made of tokens that were there before it, and makes a new one. So one pass over the list, as in the
    answer, gives the same tokens as the rule in the lesson. With two pairs that make the same token it would not: after
    ("ab", "c"), ("abc", "d") and ("a", "bc") the rule goes back to the second pair.
    """
    merges = []
    tokens = list(draw.text(50, letters))
    while len(merges) < n:
        made = [left + right for left, right in merges]
        pairs = [pair for pair in zip(tokens, tokens[1:]) if "".join(pair) not in made]
        pair = draw.choice(pairs)
        merges.append(pair)
        tokens = encode_word("".join(tokens), merges)
    return merges


def encode_word_cases(draw):
    a, b, c, d, e, f = draw.random.sample("abcdefghijklmnoprstuvwxyz", 6)
    three = a + b + c
    return [
        [a + b + c + b + c, [(a, b), (b, c), (a + b, c)]],
        # The earliest pair is not the leftmost one.
        [a + b + c, [(b, c), (a, b)]],
        [b + c + d + a, [(c, d), (b, c), (b, c + d)]],
        # The longest token of the vocabulary is never made.
        [a + b + c + d, [(b, c), (a, b), (c, d), (a + b, c + d)]],
        # Equal neighbours.
        [a * 3, [(a, a)]],
        [a * draw.choice([5, 7]) + b, [(a, a), (a, b)]],
        [b + a * 7, [(a, a), (a + a, a + a)]],
        # A pair that occurs several times, and two that do not occur.
        [a + b + e + a + b + c + a + b, [(f, a), (a, b), (b, c), (f, b)]],
        # The end of one token and the beginning of the next make no pair.
        [d + a + b + c, [(d, a), (b, c), (a, b), (a, b + c)]],
        [draw.text(draw.integer(10, 14), three), encode_word_merges(draw, three, 4)],
        [draw.text(draw.integer(10, 14), three), encode_word_merges(draw, three, 7)],
        [draw.text(draw.integer(10, 14), a + b), encode_word_merges(draw, a + b, 5)],
        [a + b + c, [(b, a), (a, c), (d, e)]],
        [a + b + a, []],
        [a, [(a, b), (a, a)]],
    ]


ENCODE_WORD = exercise(encode_word, stars=2, minutes=8, cases=encode_word_cases)


### BEGIN SOLUTION
@ENCODE_WORD.mistake(
    "the longest token of the vocabulary is taken; make the merges, the earliest in the list first"
)
def encode_word_longest_token(word, merges):
    vocabulary = {left + right for left, right in merges}
    tokens = []
    start = 0
    while start < len(word):
        end = len(word)
        while end > start + 1 and word[start:end] not in vocabulary:
            end -= 1
        tokens.append(word[start:end])
        start = end
    return tokens


@ENCODE_WORD.mistake(
    "the leftmost pair of the word is merged; take the pair that stands earliest in the list"
)
def encode_word_leftmost_pair(word, merges):
    tokens = list(word)
    i = 0
    while i < len(tokens) - 1:
        if (tokens[i], tokens[i + 1]) in merges:
            tokens[i : i + 2] = [tokens[i] + tokens[i + 1]]
            i = 0
        else:
            i += 1
    return tokens


@ENCODE_WORD.mistake("a pair is merged only where it occurs first; merge it wherever it occurs")
def encode_word_only_once(word, merges):
    tokens = list(word)
    for left, right in merges:
        for i in range(len(tokens) - 1):
            if tokens[i] == left and tokens[i + 1] == right:
                tokens[i : i + 2] = [left + right]
                break
    return tokens


@ENCODE_WORD.mistake("only one pair is merged; go on as long as some pair is in the list")
def encode_word_one_merge(word, merges):
    for pair in merges:
        if pair in zip(word, word[1:]):
            return encode_word(word, [pair])
    return list(word)


@ENCODE_WORD.mistake("equal neighbours: of `aaa` the first two are merged, not the last two")
def encode_word_from_the_right(word, merges):
    tokens = list(word)
    for left, right in merges:
        for i in range(len(tokens) - 2, -1, -1):
            if tokens[i : i + 2] == [left, right]:
                tokens[i : i + 2] = [left + right]
    return tokens


@ENCODE_WORD.mistake(
    "the second token of a merged pair is still there; the new token replaces both"
)
def encode_word_second_stays(word, merges):
    tokens = list(word)
    for left, right in merges:
        merged = []
        for i, token in enumerate(tokens):
            if tokens[i : i + 2] == [left, right]:
                merged.append(left + right)
            else:
                merged.append(token)
        tokens = merged
    return tokens


@ENCODE_WORD.mistake("`replace` looks at letters, not at tokens: it finds `a b` in `xa bc`, too")
def encode_word_by_replace(word, merges):
    spaced = " ".join(word)
    for left, right in merges:
        spaced = spaced.replace(f"{left} {right}", left + right)
    return spaced.split()


### END SOLUTION


# ---------------------------------------------------------------- whole_characters

# One in each row for each first byte that matters: a length's smallest, others, its largest.
CHARACTERS = {
    1: "ghost .\n",
    2: "éßñΩжש",
    3: "กहࠀ鵞鳥€한",
    4: "🪿🦆😀🎭\U000e0061\U0010ffff",
}


def whole_characters_text(draw, lengths):
    """Bytes of characters of these lengths."""
    text = "".join(draw.choice(CHARACTERS[length]) for length in lengths)
    return list(text.encode("utf-8"))


def whole_characters_cut(draw, before, length, n):
    """n bytes of a character of this length, after characters of other lengths."""
    whole = whole_characters_text(draw, before)
    return [whole + whole_characters_text(draw, [length])[:n]]


def whole_characters_cases(draw):
    goose = list("🪿".encode())
    thai = list("ก".encode())
    return [
        *[whole_characters_cut(draw, [1, 1], 4, n) for n in (1, 2, 3)],
        *[whole_characters_cut(draw, [1, 2, 1], 3, n) for n in (1, 2)],
        whole_characters_cut(draw, [3, 1], 2, 1),
        # The first bytes 240 and 224.
        *[[[*b"a ", *goose[:n]]] for n in (1, 2, 3)],
        [[*b"a ", *thai[:2]]],
        # Nothing is cut.
        [whole_characters_text(draw, [1, 2, 4])],
        [whole_characters_text(draw, [2, 4, 3])],
        [whole_characters_text(draw, [4, 3, 2, 1])],
        # Whole characters of several bytes before the one that is cut.
        whole_characters_cut(draw, [1, 4, 3, 2], 4, draw.integer(1, 3)),
        whole_characters_cut(draw, [1, 3, 4], 3, 2),
        [[*b"a", *"\ufffd".encode()]],
        [[*b"a", *"\ufffd".encode(), *goose[:2]]],
        whole_characters_cut(draw, [], 4, draw.integer(1, 3)),
        [whole_characters_text(draw, [1])],
        [[]],
    ]


WHOLE_CHARACTERS = exercise(whole_characters, stars=2, minutes=8, cases=whole_characters_cases)


@WHOLE_CHARACTERS.symptom(
    "the result is larger than the number of bytes: the last character is cut"
)
def whole_characters_beyond_the_end(got, want, data):
    return got > len(data)


### BEGIN SOLUTION
@WHOLE_CHARACTERS.mistake("224 and 240 are first bytes of three and four themselves: `>=`, not `>`")
def whole_characters_strictly_more(data):
    place = 0
    while place < len(data):
        first = data[place]
        length = 1 + (first > 192) + (first > 224) + (first > 240)
        if place + length > len(data):
            break
        place += length
    return place


@WHOLE_CHARACTERS.mistake("these are characters; their bytes are to be counted")
def whole_characters_counted(data):
    whole = bytes(data[: whole_characters(data)])
    return len(whole.decode("utf-8"))


@WHOLE_CHARACTERS.mistake("the last character of several bytes is left out, even if it is whole")
def whole_characters_last_left_out(data):
    n = len(data)
    while n > 0 and 128 <= data[n - 1] < 192:
        n -= 1
    if n > 0 and data[n - 1] >= 192:
        n -= 1
    return n


@WHOLE_CHARACTERS.mistake(
    "all bytes from 128 on at the end are left out; some make whole characters"
)
def whole_characters_ascii_at_the_end(data):
    n = len(data)
    while n > 0 and data[n - 1] >= 128:
        n -= 1
    return n


@WHOLE_CHARACTERS.mistake(
    "only a first byte at the very end is left out; a cut character may have two or three bytes"
)
def whole_characters_one_byte_left_out(data):
    if data and data[-1] >= 192:
        return len(data) - 1
    return len(data)


@WHOLE_CHARACTERS.mistake(
    "a text may have `�` in it, the bytes 239, 191 and 189: that one is a whole character"
)
def whole_characters_without_replacements(data):
    text = bytes(data).decode("utf-8", "replace")
    return len(text.rstrip("\ufffd").encode("utf-8"))


### END SOLUTION


# ---------------------------------------------------------------- split_at_specials


def split_at_specials_cases(draw):
    a, b, c, d, x, y = draw.random.sample("abcdefghijklmnoprstuvwxyz", 6)
    name = draw.text(draw.integer(3, 5), "aeiou")
    end = f"<|{name}|>"
    words = draw.text(draw.integer(5, 9), x + y)
    return [
        [x + a + b + c + a + b + x, [a + b, a + b + c]],
        [a + b + c + y + a + b + y, [a + b + c, a + b]],
        [x + a + b + c + d + a + b + y, [a, a + b, a + b + c + d, a + b + c]],
        # Side by side, at the beginning and at the end.
        [end + end + words + end, [end, f"<|{name}{x}|>"]],
        [end * 3 + words, [end, end * 2]],
        # Characters that a regular expression reads otherwise.
        [f"{words}[{name}]{words}{name[0]}", [f"[{name}]", end]],
        [f"{x}({y}.{words}", ["(", "."]],
        # A short one begins before a long one ends.
        [a + b + c + d + x, [b + c + d, a + b]],
        [words, [end, a + b]],
        [a + b, [a + b]],
        [words, []],
        ["", [end]],
    ]


SPLIT_AT_SPECIALS = exercise(split_at_specials, stars=2, minutes=8, cases=split_at_specials_cases)


### BEGIN SOLUTION
@SPLIT_AT_SPECIALS.mistake(
    "`|`, `(`, `[` and `.` mean something in a regular expression: put each text through `re.escape`"
)
def split_at_specials_not_escaped(text, specials):
    parts = re.split("(" + "|".join(specials) + ")", text)
    return [part for part in parts if part]


@SPLIT_AT_SPECIALS.mistake(
    "a regular expression takes the first alternative that fits, so sort them by length; without "
    "any it fits everywhere"
)
def split_at_specials_not_sorted(text, specials):
    parts = re.split("(" + "|".join(map(re.escape, specials)) + ")", text)
    return [part for part in parts if part]


@SPLIT_AT_SPECIALS.mistake(
    "without special tokens the regular expression is empty and fits everywhere; the text stays whole"
)
def split_at_specials_empty_pattern(text, specials):
    longest_first = sorted(specials, key=len, reverse=True)
    parts = re.split("(" + "|".join(map(re.escape, longest_first)) + ")", text)
    return [part for part in parts if part]


@SPLIT_AT_SPECIALS.mistake("the first of the list that fits is taken; take the longest that fits")
def split_at_specials_first_of_the_list(text, specials):
    parts = []
    plain = ""
    place = 0
    while place < len(text):
        fitting = [special for special in specials if text.startswith(special, place)]
        if not fitting:
            plain += text[place]
            place += 1
            continue
        if plain:
            parts.append(plain)
            plain = ""
        parts.append(fitting[0])
        place += len(fitting[0])
    if plain:
        parts.append(plain)
    return parts


@SPLIT_AT_SPECIALS.mistake("there are empty parts where two special tokens meet, or at the ends")
def split_at_specials_empty_parts(text, specials):
    if not specials:
        return [text]
    longest_first = sorted(specials, key=len, reverse=True)
    return re.split("(" + "|".join(map(re.escape, longest_first)) + ")", text)


@SPLIT_AT_SPECIALS.mistake(
    "the longest is looked for in the whole text first; read from left to right: what begins first "
    "is cut out"
)
def split_at_specials_one_after_the_other(text, specials):
    parts = [text]
    for special in sorted(specials, key=len, reverse=True):
        smaller = []
        for part in parts:
            if part in specials:
                smaller.append(part)
            else:
                smaller.extend(re.split("(" + re.escape(special) + ")", part))
        parts = smaller
    return [part for part in parts if part]


@SPLIT_AT_SPECIALS.mistake("the text after the last special token is missing")
def split_at_specials_without_the_rest(text, specials):
    parts = split_at_specials(text, specials)
    if parts and parts[-1] not in specials:
        parts.pop()
    return parts


### END SOLUTION


# ---------------------------------------------------------------- bits_per_character


def bits_per_character_cases(draw):
    tokens = draw.integer(200, 900)
    return [
        [draw.number(2.5, 4.0), tokens, 3 * tokens + draw.integer(10, 90)],
        [draw.number(1.5, 2.5), draw.integer(1000, 9000), draw.integer(20_000, 40_000)],
        # Tokens of bytes, in a script that takes three of them for a character.
        [draw.number(0.5, 1.5), 3 * draw.integer(90, 200), draw.integer(60, 80)],
        [draw.number(1.0, 2.0), tokens, tokens],
        [draw.number(7.0, 9.0), 1, draw.integer(2, 9)],
        [0.0, draw.integer(3, 9), draw.integer(10, 20)],
    ]


BITS_PER_CHARACTER = exercise(
    bits_per_character, stars=1, minutes=4, cases=bits_per_character_cases
)


### BEGIN SOLUTION
@BITS_PER_CHARACTER.mistake("these are nats per character: divide by ln 2")
def bits_per_character_in_nats(nats_per_token, tokens, characters):
    return nats_per_token * tokens / characters


@BITS_PER_CHARACTER.mistake("the nats are multiplied by ln 2; a nat is more than a bit: divide")
def bits_per_character_multiplied(nats_per_token, tokens, characters):
    return nats_per_token * tokens / characters * math.log(2)


@BITS_PER_CHARACTER.mistake(
    "tokens and characters are exchanged: the fewer tokens a text has, the less it costs"
)
def bits_per_character_exchanged(nats_per_token, tokens, characters):
    return nats_per_token * characters / tokens / math.log(2)


@BITS_PER_CHARACTER.mistake("these are bits per token: spread them over the characters")
def bits_per_character_per_token(nats_per_token, tokens, characters):
    return nats_per_token / math.log(2)


@BITS_PER_CHARACTER.mistake("these are the bits of the whole text: divide by its characters")
def bits_per_character_whole_text(nats_per_token, tokens, characters):
    return nats_per_token * tokens / math.log(2)


@BITS_PER_CHARACTER.mistake(
    "the loss is divided by the characters, but not multiplied by the tokens: it is a mean, not a "
    "sum"
)
def bits_per_character_mean_for_sum(nats_per_token, tokens, characters):
    return nats_per_token / math.log(2) / characters


### END SOLUTION
