"""Answers to the exercises of lesson 14: right ones, and wrong ones with a piece of their hint."""

import codecs
import math
import re

from tests.mistakes import right, wrong

# ---------------------------------------------------------------- utf8_length


@right("utf8_length")
def really_encoded(numbers):
    return len("".join(map(chr, numbers)).encode("utf-8"))


@right("utf8_length")
def limits_passed(numbers):
    return sum(1 + sum(number >= limit for limit in (128, 2048, 65536)) for number in numbers)


@right("utf8_length")
def by_bit_length(numbers):
    total = 0
    for number in numbers:
        total += next(n for n, room in ((1, 7), (2, 11), (3, 16), (4, 21)) if number < 1 << room)
    return total


@wrong("utf8_length", "so `<`, not `<=`")
def borders_included(numbers):
    total = 0
    for number in numbers:
        total += 1 if number <= 128 else 2 if number <= 2048 else 3 if number <= 65536 else 4
    return total


@wrong("utf8_length", "a byte is given 8 binary digits")
def bytes_of_the_number(numbers):
    return sum(max(1, math.ceil(number.bit_length() / 8)) for number in numbers)


@wrong("utf8_length", "are numbers of binary digits")
def digits_for_numbers(numbers):
    total = 0
    for n in numbers:
        total += 4 - (n <= 7) - (n <= 11) - (n <= 16)
    return total


@wrong("utf8_length", "`elif`, not `if`")
def three_ifs(numbers):
    total = 0
    for number in numbers:
        if number < 128:
            total += 1
        if number < 2048:
            total += 2
        if number < 65536:
            total += 3
        else:
            total += 4
    return total


@wrong("utf8_length", "the number of characters")
def one_byte_each(numbers):
    return sum(1 for _ in numbers)


@wrong("utf8_length", "take four bytes")
def no_emoji(numbers):
    return sum(1 if number < 128 else 2 if number < 2048 else 3 for number in numbers)


@wrong("utf8_length")
def seven_digits_a_byte(numbers):
    return sum(max(1, -(-number.bit_length() // 7)) for number in numbers)


@wrong("utf8_length")
def utf_16(numbers):
    return len("".join(map(chr, numbers)).encode("utf-16-le"))


@wrong("utf8_length", "numbers = a list [0]: it returns 0")
def zero_has_no_digits(numbers):
    total = 0
    for number in numbers:
        digits = number.bit_length()
        total += (digits > 0) + (digits > 7) + (digits > 11) + (digits > 16)
    return total


@wrong("utf8_length", "is there a `return`?")
def adds_and_keeps_it(numbers):
    total = 0
    for number in numbers:
        total += 1 + (number > 127) + (number > 2047) + (number > 65535)


@wrong("utf8_length")
def as_wide_as_the_widest(numbers):
    largest = max(numbers, default=0)
    return len(numbers) * (1 + (largest > 127) + (largest > 2047) + (largest > 65535))


# ---------------------------------------------------------------- encode_word


@right("encode_word")
def as_the_text_says(word, merges):
    tokens = list(word)
    while True:
        neighbours = list(zip(tokens, tokens[1:]))
        pair = next((pair for pair in merges if pair in neighbours), None)
        if pair is None:
            return tokens
        merged = []
        i = 0
        while i < len(tokens):
            if tuple(tokens[i : i + 2]) == pair:
                merged.append(tokens[i] + tokens[i + 1])
                i += 2
            else:
                merged.append(tokens[i])
                i += 1
        tokens = merged


@right("encode_word")
def one_place_at_a_time(word, merges):
    ranks = {pair: rank for rank, pair in enumerate(merges)}
    tokens = list(word)
    while len(tokens) > 1:
        found = [ranks.get(pair, len(ranks)) for pair in zip(tokens, tokens[1:])]
        i = found.index(min(found))
        if found[i] == len(ranks):
            break
        tokens[i : i + 2] = [tokens[i] + tokens[i + 1]]
    return tokens


@right("encode_word")
def in_place_of_a_slice(word, merges):
    tokens = [char for char in word]
    for pair in merges:
        for i in range(len(tokens) - 1):
            if tokens[i : i + 2] == list(pair):
                tokens[i : i + 2] = ["".join(pair)]
    return tokens


@wrong("encode_word", "the longest token of the vocabulary")
def longest_piece_first(word, merges):
    vocabulary = {*word, *(first + second for first, second in merges)}
    tokens = []
    while word:
        piece = max((piece for piece in vocabulary if word.startswith(piece)), key=len)
        tokens.append(piece)
        word = word[len(piece) :]
    return tokens


@wrong("encode_word", "the leftmost pair of the word")
def first_pair_that_is_listed(word, merges):
    tokens = list(word)
    while True:
        for i, pair in enumerate(zip(tokens, tokens[1:])):
            if pair in merges:
                tokens[i : i + 2] = ["".join(pair)]
                break
        else:
            return tokens


@wrong("encode_word")
def one_pass_over_the_word(word, merges):
    tokens = []
    for char in word:
        if tokens and (tokens[-1], char) in merges:
            tokens[-1] += char
        else:
            tokens.append(char)
    return tokens


@wrong("encode_word", "merge it wherever it occurs")
def only_the_first_place(word, merges):
    tokens = list(word)
    for pair in merges:
        neighbours = list(zip(tokens, tokens[1:]))
        if pair in neighbours:
            i = neighbours.index(pair)
            tokens = tokens[:i] + [pair[0] + pair[1]] + tokens[i + 2 :]
    return tokens


@wrong("encode_word", "only one pair is merged")
def earliest_and_out(word, merges):
    tokens = list(word)
    for first, second in merges:
        merged = []
        for token in tokens:
            if merged and (merged[-1], token) == (first, second):
                merged[-1] += token
            else:
                merged.append(token)
        if merged != tokens:
            return merged
    return tokens


@wrong("encode_word", "not the last two")
def from_the_end(word, merges):
    tokens = list(word)
    for first, second in merges:
        i = len(tokens) - 2
        while i >= 0:
            if tokens[i] == first and tokens[i + 1] == second:
                tokens[i] = first + second
                del tokens[i + 1]
            i -= 1
    return tokens


@wrong("encode_word", "the new token replaces both")
def second_one_stays(word, merges):
    tokens = list(word)
    for first, second in merges:
        following = tokens[1:] + [None]
        tokens = [
            first + second if (token, after) == (first, second) else token
            for token, after in zip(tokens, following)
        ]
    return tokens


@wrong("encode_word", "`replace` looks at letters")
def replaced_between_spaces(word, merges):
    text = " ".join(word)
    for first, second in merges:
        text = text.replace(first + " " + second, first + second)
    return text.split(" ")


@wrong("encode_word")
def the_last_one_first(word, merges):
    tokens = list(word)
    for first, second in reversed(merges):
        for i in range(len(tokens) - 1):
            if tokens[i : i + 2] == [first, second]:
                tokens[i : i + 2] = [first + second]
    return tokens


@wrong("encode_word")
def stops_at_a_pair_that_is_not_there(word, merges):
    tokens = list(word)
    for pair in merges:
        if pair not in zip(tokens, tokens[1:]):
            break
        for i in range(len(tokens) - 1):
            if tuple(tokens[i : i + 2]) == pair:
                tokens[i : i + 2] = ["".join(pair)]
    return tokens


@wrong("encode_word", "it returns a list ['")
def letters_alone(word, merges):
    return list(word)


@wrong("encode_word", "it returns the text")
def with_dots_between(word, merges):
    tokens = list(word)
    for first, second in merges:
        for i in range(len(tokens) - 1):
            if tokens[i : i + 2] == [first, second]:
                tokens[i : i + 2] = [first + second]
    return "·".join(tokens)


@wrong("encode_word", "IndexError")
def range_of_the_old_length(word, merges):
    tokens = list(word)
    for first, second in merges:
        for i in range(len(tokens) - 1):
            if tokens[i] == first and tokens[i + 1] == second:
                tokens[i] += tokens.pop(i + 1)
    return tokens


@wrong("encode_word", "is there a `return`?")
def encodes_and_keeps_it(word, merges):
    tokens = list(word)
    for first, second in merges:
        for i in range(len(tokens) - 1):
            if tokens[i : i + 2] == [first, second]:
                tokens[i : i + 2] = [first + second]


@wrong("encode_word", "in place")
def uses_up_the_merges(word, merges):
    tokens = list(word)
    while merges:
        first, second = merges.pop(0)
        for i in range(len(tokens) - 1):
            if tokens[i : i + 2] == [first, second]:
                tokens[i : i + 2] = [first + second]
    return tokens


# ---------------------------------------------------------------- whole_characters


@right("whole_characters")
def back_to_the_last_first_byte(data):
    start = len(data) - 1
    while start >= 0 and 128 <= data[start] < 192:
        start -= 1
    if start < 0:
        return 0
    first = data[start]
    length = 1 if first < 128 else 2 if first < 224 else 3 if first < 240 else 4
    return len(data) if start + length == len(data) else start


@right("whole_characters")
def errors_ignored(data):
    return len(bytes(data).decode("utf-8", errors="ignore").encode("utf-8"))


@right("whole_characters")
def by_pythons_own_decoder(data):
    decoder = codecs.getincrementaldecoder("utf-8")()
    decoder.decode(bytes(data))
    left_over, _ = decoder.getstate()
    return len(data) - len(left_over)


@right("whole_characters")
def bytes_still_to_come(data):
    whole = missing = 0
    for place, byte in enumerate(data):
        if byte >= 192:
            missing = 1 + (byte >= 224) + (byte >= 240)
        elif byte >= 128:
            missing -= 1
        if missing == 0:
            whole = place + 1
    return whole


@wrong("whole_characters", "`>=`, not `>`")
def strictly_more(data):
    place = 0
    while place < len(data):
        first = data[place]
        length = 4 if first > 240 else 3 if first > 224 else 2 if first > 192 else 1
        if place + length > len(data):
            return place
        place += length
    return place


@wrong("whole_characters", "these are characters")
def characters_decoded(data):
    return len(bytes(data).decode("utf-8", errors="ignore"))


@wrong("whole_characters", "even if it is whole")
def last_long_one_left_out(data):
    n = len(data)
    while n and data[n - 1] // 64 == 2:
        n -= 1
    return n - 1 if n and data[n - 1] > 191 else n


@wrong("whole_characters", "some make whole characters")
def up_to_the_last_letter(data):
    data = list(data)
    while data and data[-1] > 127:
        data.pop()
    return len(data)


@wrong("whole_characters", "only a first byte at the very end")
def first_byte_at_the_end(data):
    return len(data) - (len(data) > 0 and data[-1] >= 192)


@wrong("whole_characters", "239, 191 and 189")
def without_question_marks(data):
    text = bytes(data).decode("utf-8", errors="replace")
    while text.endswith("�"):
        text = text[:-1]
    return len(text.encode())


@wrong("whole_characters", "larger than the number of bytes")
def over_the_end(data):
    place = 0
    while place < len(data):
        place += 1 + (data[place] >= 192) + (data[place] >= 224) + (data[place] >= 240)
    return place


@wrong("whole_characters", "larger than the number of bytes")
def replaced_and_counted(data):
    return len(bytes(data).decode("utf-8", errors="replace").encode("utf-8"))


@wrong("whole_characters")
def no_longer_than_all(data):
    place = 0
    while place < len(data):
        place += 1 + (data[place] >= 192) + (data[place] >= 224) + (data[place] >= 240)
    return min(place, len(data))


@wrong("whole_characters")
def bytes_left_over(data):
    return len(data) - len(bytes(data).decode("utf-8", "ignore").encode())


@wrong("whole_characters")
def three_at_most(data):
    place = 0
    while place < len(data):
        length = 1 if data[place] < 128 else 2 if data[place] < 224 else 3
        if place + length > len(data):
            break
        place += length
    return place


@wrong("whole_characters", "UnicodeDecodeError")
def decoded_strictly(data):
    return len(bytes(data).decode("utf-8").encode("utf-8"))


@wrong("whole_characters", "IndexError")
def the_last_byte_of_nothing(data):
    n = len(data)
    start = n - 1
    while 128 <= data[start] < 192:
        start -= 1
    first = data[start]
    length = 1 + (first >= 192) + (first >= 224) + (first >= 240)
    return n if start + length == n else start


@wrong("whole_characters", "in place")
def takes_the_rest_away(data):
    while data and data[-1] >= 128:
        try:
            bytes(data).decode()
            break
        except UnicodeDecodeError:
            data.pop()
    return len(data)


# ---------------------------------------------------------------- split_at_specials


@right("split_at_specials")
def by_a_regular_expression(text, specials):
    if not specials:
        return [text] if text else []
    longest_first = sorted(specials, key=len, reverse=True)
    parts = re.split(f"({'|'.join(re.escape(special) for special in longest_first)})", text)
    return [part for part in parts if part != ""]


@right("split_at_specials")
def by_recursion(text, specials):
    for place in range(len(text)):
        for special in sorted(specials, key=len)[::-1]:
            if text[place:].startswith(special):
                before = [text[:place]] if place else []
                return [*before, special, *by_recursion(text[place + len(special) :], specials)]
    return [text] if text else []


@right("split_at_specials")
def the_next_one(text, specials):
    parts = []
    while text:
        found = [(text.find(s), -len(s), s) for s in specials if s in text]
        place, _, special = min(found, default=(len(text), 0, ""))
        parts += [text[:place], special]
        text = text[place + len(special) :]
    return list(filter(None, parts))


@wrong("split_at_specials", "re.escape")
def joined_as_they_are(text, specials):
    return [part for part in re.split(f"({'|'.join(specials)})", text) if part]


@wrong("split_at_specials", "takes the first alternative that fits")
def in_the_order_of_the_list(text, specials):
    pattern = re.compile("(" + "|".join(re.escape(special) for special in specials) + ")")
    return list(filter(None, pattern.split(text)))


@wrong("split_at_specials", "without special tokens")
def an_empty_pattern(text, specials):
    by_length = sorted(specials, key=lambda special: -len(special))
    pattern = "|".join(re.escape(special) for special in by_length)
    return [part for part in re.split(f"({pattern})", text) if part]


@wrong("split_at_specials", "take the longest that fits")
def first_that_fits(text, specials):
    parts = [""]
    while text:
        special = next((special for special in specials if text.startswith(special)), None)
        if special is None:
            parts[-1] += text[0]
            text = text[1:]
        else:
            parts += [special, ""]
            text = text.removeprefix(special)
    return [part for part in parts if part]


@wrong("split_at_specials", "there are empty parts")
def empty_parts_stay(text, specials):
    parts = []
    start = place = 0
    while place < len(text):
        fitting = [special for special in specials if text.startswith(special, place)]
        if fitting:
            longest = max(fitting, key=len)
            parts += [text[start:place], longest]
            place += len(longest)
            start = place
        else:
            place += 1
    return parts + [text[start:]]


@wrong("split_at_specials", "in the whole text first")
def the_longest_everywhere(text, specials):
    parts = [text] if text else []
    for special in sorted(specials, key=len, reverse=True):
        cut = []
        for part in parts:
            if part in specials:
                cut.append(part)
                continue
            pieces = part.split(special)
            for n, piece in enumerate(pieces):
                cut += [special] * (n > 0) + [piece] * (piece != "")
        parts = cut
    return parts


@wrong("split_at_specials", "after the last special token")
def rest_is_lost(text, specials):
    parts, plain, place = [], "", 0
    while place < len(text):
        fitting = [special for special in specials if text.startswith(special, place)]
        if fitting:
            if plain:
                parts.append(plain)
            plain = ""
            parts.append(max(fitting, key=len))
            place += len(parts[-1])
        else:
            plain += text[place]
            place += 1
    return parts


@wrong("split_at_specials")
def the_shortest_that_fits(text, specials):
    if not specials:
        return [text]
    pattern = "|".join(re.escape(special) for special in sorted(specials, key=len))
    return [part for part in re.split(f"({pattern})", text) if part]


@wrong("split_at_specials", "it returns a list")
def special_tokens_are_lost(text, specials):
    if not specials:
        return [text]
    by_length = sorted(specials, key=len, reverse=True)
    return [part for part in re.split("|".join(map(re.escape, by_length)), text) if part]


@wrong("split_at_specials")
def each_once(text, specials):
    parts = []
    for special in sorted(specials, key=len, reverse=True):
        before, found, text = text.partition(special)
        parts += [before, found]
    return [part for part in [*parts, text] if part]


@wrong("split_at_specials")
def letter_by_letter(text, specials):
    parts = []
    while text:
        fitting = [special for special in specials if text.startswith(special)]
        parts.append(max(fitting, key=len, default=text[0]))
        text = text[len(parts[-1]) :]
    return parts


@wrong("split_at_specials")
def a_blank_between(text, specials):
    for special in sorted(specials, key=len, reverse=True):
        text = text.replace(special, f" {special} ")
    return text.split()


@wrong("split_at_specials", "ValueError")
def the_longest_of_nothing(text, specials):
    parts = []
    place = 0
    while place < len(text):
        longest = max((s for s in specials if text.startswith(s, place)), key=len)
        parts.append(longest)
        place += len(longest)
    return parts


@wrong("split_at_specials", "in place")
def sorts_the_list_itself(text, specials):
    specials.sort(key=len, reverse=True)
    if not specials:
        return [text]
    parts = re.split("(" + "|".join(map(re.escape, specials)) + ")", text)
    return [part for part in parts if part]


# ---------------------------------------------------------------- bits_per_character


@right("bits_per_character")
def by_the_change_of_base(nats_per_token, tokens, characters):
    return math.log2(math.exp(nats_per_token)) * tokens / characters


@right("bits_per_character")
def spread_over_the_characters(nats_per_token, tokens, characters):
    characters_per_token = characters / tokens
    return nats_per_token / characters_per_token * math.log2(math.e)


@wrong("bits_per_character", "these are nats per character")
def still_nats(nats_per_token, tokens, characters):
    return tokens * nats_per_token / characters


@wrong("bits_per_character", "multiplied by ln 2")
def a_bit_for_a_nat(nats_per_token, tokens, characters):
    return 0.6931472 * nats_per_token * tokens / characters


@wrong("bits_per_character", "exchanged")
def characters_over_tokens(nats_per_token, tokens, characters):
    return nats_per_token * characters / (tokens * math.log(2))


@wrong("bits_per_character", "these are bits per token")
def per_token(nats_per_token, tokens, characters):
    return nats_per_token * math.log2(math.e)


@wrong("bits_per_character", "the bits of the whole text")
def of_the_whole_text(nats_per_token, tokens, characters):
    return tokens * nats_per_token / math.log(2)


@wrong("bits_per_character", "a mean, not a sum")
def taken_for_the_sum(nats_per_token, tokens, characters):
    return nats_per_token / (characters * math.log(2))


@wrong("bits_per_character")
def divided_by_tokens(nats_per_token, tokens, characters):
    return nats_per_token / math.log(2) / tokens


@wrong("bits_per_character")
def ten_for_two(nats_per_token, tokens, characters):
    return nats_per_token * tokens / characters / math.log10(2)


@wrong("bits_per_character", "it returns")
def logarithm_of_the_loss(nats_per_token, tokens, characters):
    return math.log2(nats_per_token) * tokens / characters


@wrong("bits_per_character")
def in_whole_bits(nats_per_token, tokens, characters):
    return nats_per_token / math.log(2) * tokens // characters


@wrong("bits_per_character")
def perplexity(nats_per_token, tokens, characters):
    return math.exp(nats_per_token * tokens / characters)


@wrong("bits_per_character", "is there a `return`?")
def printed(nats_per_token, tokens, characters):
    print(nats_per_token * tokens / characters / math.log(2))
