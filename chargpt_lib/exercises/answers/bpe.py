# Made from the exercises of notebooks/source/14_tokenizers.py by notebooks/tools/build.py. Edit that text, not this file.
"""The right answers to the exercises of 14 · Tokenizers: pieces of words."""

import math


def utf8_length(numbers):
    """numbers: the Unicode numbers of a text's characters, a list of ints -> int: the bytes of the text in UTF-8."""
    length = 0
    for number in numbers:
        if number < 2**7:
            length += 1
        elif number < 2**11:
            length += 2
        elif number < 2**16:
            length += 3
        else:
            length += 4
    return length


def encode_word(word, merges):
    """word: str, merges: a list of pairs of str -> a list of str, the tokens of the word."""
    tokens = list(word)
    for left, right in merges:
        merged = []
        for token in tokens:
            if merged and merged[-1] == left and token == right:
                merged[-1] = left + right
            else:
                merged.append(token)
        tokens = merged
    return tokens


def whole_characters(data):
    """data: a list of ints from 0 to 255 -> int, the number of bytes up to the end of the last whole character."""
    place = 0
    while place < len(data):
        first = data[place]
        if first >= 240:
            length = 4
        elif first >= 224:
            length = 3
        elif first >= 192:
            length = 2
        else:
            length = 1
        if place + length > len(data):
            break
        place += length
    return place


def split_at_specials(text, specials):
    """text: str, specials: a list of str, none of them empty -> a list of str that make the text when joined."""
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
        longest = max(fitting, key=len)
        parts.append(longest)
        place += len(longest)
    if plain:
        parts.append(plain)
    return parts


def bits_per_character(nats_per_token, tokens, characters):
    """nats_per_token: float, tokens, characters: ints -> float, the bits that each character costs."""
    nats = nats_per_token * tokens
    return nats / math.log(2) / characters
