"""How the exercises of lesson 17 are judged: cases, mistakes, symptoms."""

import math
import re

import torch

from chargpt_lib.exercises.answers.gpt2 import (
    our_name,
    stack_heads,
    table_for_alphabet,
    training_hours,
)
from chargpt_lib.exercises.judge import exercise

# ---------------------------------------------------------------- our_name


def our_name_cases(draw):
    few = draw.integer(3, 9)
    # More blocks than the smallest GPT-2 has; the largest has 48.
    many = draw.integer(12, 47)
    parameter = draw.choice(["weight", "bias"])
    return [
        [f"transformer.h.{few}.ln_1.bias"],
        [f"transformer.h.{few}.attn.c_attn.weight"],
        [f"transformer.h.{few}.attn.c_proj.{parameter}"],
        [f"transformer.h.{few}.ln_2.weight"],
        [f"transformer.h.{few}.mlp.c_fc.bias"],
        [f"transformer.h.{few}.mlp.c_proj.{parameter}"],
        # Numbers of two digits, and numbers that the norms have, too.
        [f"transformer.h.{many}.attn.c_attn.bias"],
        [f"transformer.h.{many}.mlp.c_proj.weight"],
        ["transformer.h.0.mlp.c_fc.weight"],
        [f"transformer.h.1.ln_1.{parameter}"],
        [f"transformer.h.2.ln_2.{parameter}"],
        # What stands in no block.
        ["transformer.wte.weight"],
        ["transformer.wpe.weight"],
        ["transformer.ln_f.weight"],
        ["transformer.ln_f.bias"],
        ["lm_head.weight"],
        # Without the prefix.
        [f"h.{many}.ln_2.bias"],
        [f"h.{few}.attn.c_proj.weight"],
        ["wte.weight"],
        ["wpe.weight"],
        ["ln_f.bias"],
    ]


OUR_NAME = exercise(our_name, stars=1, minutes=5, cases=our_name_cases)


### BEGIN SOLUTION
@OUR_NAME.mistake("`transformer.` is still there; our names never begin with it")
def our_name_prefix_stays(name):
    if name.startswith("transformer."):
        return f"transformer.{our_name(name)}"
    return our_name(name)


@OUR_NAME.mistake("the first part is always taken away; it may be `h` or `lm_head` already")
def our_name_first_part_lost(name):
    _, rest = name.split(".", 1)
    return our_name(rest)


@OUR_NAME.mistake(
    "`h` is also a letter of `weight` and `lm_head`: replace whole parts between the dots"
)
def our_name_letters_replaced(name):
    return our_name(name).replace("h", "blocks")


@OUR_NAME.mistake("`c_attn` has `attn` in it, and became `c_attention`; it is our `qkv`")
def our_name_attn_in_c_attn(name):
    return our_name(name).replace("qkv", "c_attention")


@OUR_NAME.mistake(
    "`ln_f` is our `norm`: it stands after all blocks, and has no number and no letter"
)
def our_name_norm_f(name):
    return our_name(name.replace("ln_f", "norm_f"))


@OUR_NAME.mistake("that is the name of a module; `weight` or `bias` at its end is missing")
def our_name_of_the_module(name):
    module, _ = our_name(name).rsplit(".", 1)
    return module


@OUR_NAME.mistake("the number of a block may have two digits: the largest GPT-2 has 48 blocks")
def our_name_one_digit(name):
    return re.sub(r"blocks\.(\d\d)", r"h.\1", our_name(name))


### END SOLUTION

# ---------------------------------------------------------------- stack_heads


def stack_heads_case(draw, H, head_size, C, dtype=torch.float32):
    """Queries, keys and values of H heads."""
    return [
        [draw.normal(head_size, C, dtype=dtype) for _ in range(H)],
        [draw.normal(head_size, C, dtype=dtype) for _ in range(H)],
        [draw.normal(head_size, C, dtype=dtype) for _ in range(H)],
    ]


def stack_heads_cases(draw):
    H = draw.integer(2, 3)
    on_their_side = stack_heads_case(draw, H, 5, 2)
    return [
        stack_heads_case(draw, H, 2, 2 * H),
        stack_heads_case(draw, 4, draw.integer(2, 3), 6, torch.float64),
        # As many heads as rows in each, and square matrices.
        stack_heads_case(draw, 3, 3, 4),
        stack_heads_case(draw, 2, 4, 4, torch.float64),
        # The result is square.
        stack_heads_case(draw, 2, 1, 6),
        # Not contiguous.
        [[matrix.T for matrix in matrices] for matrices in on_their_side],
        # One head, rows of one, one number each.
        stack_heads_case(draw, 1, draw.integer(2, 4), 4),
        stack_heads_case(draw, draw.integer(3, 5), 1, 3),
        stack_heads_case(draw, 1, 1, 1),
    ]


STACK_HEADS = exercise(stack_heads, stars=2, minutes=8, cases=stack_heads_cases)


@STACK_HEADS.symptom(
    "row {0} belongs to another place: all queries come first, head after head, then the keys, then "
    "the values"
)
def stack_heads_other_order(got, want, queries, keys, values):
    same = (got[:, None] == want).all(2)  # row of the result, row that is wanted
    all_are_there = same.any(0).all() and same.any(1).all()
    return all_are_there & ~same.diagonal()


### BEGIN SOLUTION
@STACK_HEADS.mistake(
    "these are q, k and v of head 0, then of head 1; all queries come first, then all keys, then all "
    "values"
)
def stack_heads_head_after_head(queries, keys, values):
    rows = []
    for query, key, value in zip(queries, keys, values):
        rows.extend([query, key, value])
    return torch.cat(rows)


@STACK_HEADS.mistake("all matrices stand side by side; put rows under rows, along dimension 0")
def stack_heads_side_by_side(queries, keys, values):
    return torch.cat([*queries, *keys, *values], dim=1)


@STACK_HEADS.mistake(
    "the heads stand side by side, as what they compute does; their rows go under one another"
)
def stack_heads_beside_each_other(queries, keys, values):
    return torch.cat([torch.cat(kind, dim=1) for kind in (queries, keys, values)])


@STACK_HEADS.mistake("`stack` makes one more dimension; `cat` puts rows under rows")
def stack_heads_stacked(queries, keys, values):
    return torch.stack([*queries, *keys, *values])


@STACK_HEADS.mistake(
    "this is the transpose: `nn.Linear` keeps its weight as (out, in), here (3C, C)"
)
def stack_heads_transposed(queries, keys, values):
    return stack_heads(queries, keys, values).T


@STACK_HEADS.mistake("this is head 0 alone; the rows of all heads are to be there")
def stack_heads_first_head(queries, keys, values):
    return torch.cat([queries[0], keys[0], values[0]])


### END SOLUTION

# ---------------------------------------------------------------- table_for_alphabet

LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ .,:!?'\n"


def table_for_alphabet_case(draw, old, new, C, dtype=torch.float32):
    """The mean of the rows is not near 0."""
    return [draw.normal(len(old), C, dtype=dtype) + 0.5, old, new]


def table_for_alphabet_large(draw):
    """Two alphabets in the order of a CharTokenizer, and a table that is not contiguous."""
    characters = draw.random.sample(LETTERS, 24)
    old = "".join(sorted(characters[:16]))
    new = "".join(sorted(characters[6:]))
    table = draw.normal(5, len(old)) + 0.5
    return [table.T, old, new]


def table_for_alphabet_cases(draw):
    a, b, c, d, e, f = draw.random.sample(LETTERS, 6)
    C = draw.integer(2, 3)
    return [
        # The first of old is kept, two are gone, two are new; none stands where it stood.
        table_for_alphabet_case(draw, a + b + c + d, e + c + a + f, C),
        # More than before, and fewer.
        table_for_alphabet_case(draw, b + a, c + b + d + a + e, 5, torch.float64),
        table_for_alphabet_case(draw, a + b + c + d + e, f + b, C),
        # As many rows as columns.
        table_for_alphabet_case(draw, a + b + c + d, d + e + a, 4, torch.float64),
        # Nothing is new, nothing is kept.
        table_for_alphabet_case(draw, a + b + c, c + a + b, C),
        table_for_alphabet_case(draw, a + b + c, d + e, 4),
        table_for_alphabet_large(draw),
        table_for_alphabet_case(draw, a, a, 1),
    ]


TABLE_FOR_ALPHABET = exercise(
    table_for_alphabet, stars=2, minutes=8, cases=table_for_alphabet_cases
)


@TABLE_FOR_ALPHABET.symptom("row {0} is a row of the table, but not that of character {0} of `new`")
def table_for_alphabet_other_character(got, want, table, old, new):
    copies = (got[:, None] == table).all(2).any(1)
    return copies & (got != want).any(1)


@TABLE_FOR_ALPHABET.symptom(
    "row {0} belongs to a new character: give it the mean over all rows of `table`, dimension 0"
)
def table_for_alphabet_other_mean(got, want, table, old, new):
    is_new = torch.tensor([character not in old for character in new])
    return is_new & ~torch.isclose(got, want, 1e-3, 1e-4).all(1)


### BEGIN SOLUTION
@TABLE_FOR_ALPHABET.mistake(
    "`find` returns -1 for a character that is not there, and row -1 of the table is the last one"
)
def table_for_alphabet_last_row(table, old, new):
    return table[[old.find(character) for character in new]]


@TABLE_FOR_ALPHABET.mistake(
    "a new character gets zeros; give it the mean of all rows of the old table"
)
def table_for_alphabet_zeros(table, old, new):
    rows = torch.zeros(len(new), table.shape[1], dtype=table.dtype)
    for i, character in enumerate(new):
        if character in old:
            rows[i] = table[old.index(character)]
    return rows


@TABLE_FOR_ALPHABET.mistake(
    "this is the mean of the rows that are kept; take it over all rows of the old table"
)
def table_for_alphabet_mean_of_kept(table, old, new):
    kept = [place for place, character in enumerate(old) if character in new]
    rows = table[kept].mean(0).repeat(len(new), 1)
    for i, character in enumerate(new):
        if character in old:
            rows[i] = table[old.index(character)]
    return rows


@TABLE_FOR_ALPHABET.mistake(
    "the kept rows come first, in the order of `old`; row i belongs to character i of `new`"
)
def table_for_alphabet_old_order(table, old, new):
    kept = [place for place, character in enumerate(old) if character in new]
    mean = table.mean(0)
    return torch.cat([table[kept], mean.expand(len(new) - len(kept), -1)])


@TABLE_FOR_ALPHABET.mistake(
    "the first character of `old` gets the mean: its place is 0, and only -1 says that it is not there"
)
def table_for_alphabet_place_0(table, old, new):
    rows = table.mean(0).repeat(len(new), 1)
    for i, character in enumerate(new):
        place = old.find(character)
        if place > 0:
            rows[i] = table[place]
    return rows


### END SOLUTION

# ---------------------------------------------------------------- training_hours


def training_hours_cases(draw):
    return [
        [124_439_808, draw.integer(2, 9) * 1_000_000_000, 8, 3.12e14, draw.number(0.35, 0.5)],
        [
            draw.integer(300_000_000, 900_000_000),
            draw.integer(10**10, 10**11),
            draw.choice([16, 32, 64]),
            9.89e14,
            draw.number(0.35, 0.5),
        ],
        [1_557_611_200, draw.integer(10**10, 10**11), 4, 4.5e13, draw.number(0.1, 0.3)],
        # One card, at the speed on its data sheet.
        [draw.integer(10**8, 10**9), 10**10, 1, 3.12e14, 1.0],
        # A model of this course: much less than an hour on two cards, some minutes on a laptop.
        [draw.integer(500_000, 900_000), draw.integer(10**6, 10**7), 2, 1e13, 0.4],
        [draw.integer(500_000, 900_000), draw.integer(10**6, 10**7), 1, 5e10, 0.4],
    ]


# An absolute tolerance would let answers pass that are nearly 0: those without the tokens, for one.
TRAINING_HOURS = exercise(training_hours, stars=1, minutes=4, cases=training_hours_cases, atol=0.0)


@TRAINING_HOURS.symptom(
    "a training takes 6 operations for each parameter and token: 2 in the forward pass, 4 in the "
    "backward pass"
)
def training_hours_other_than_6(got, want, parameters, tokens, cards, peak, mfu):
    return any(math.isclose(6 * got, n * want, rel_tol=1e-6) for n in (1, 2, 4))


### BEGIN SOLUTION
@TRAINING_HOURS.mistake("these are seconds: an hour has 3600 of them")
def training_hours_in_seconds(parameters, tokens, cards, peak, mfu):
    return 6 * parameters * tokens / (cards * peak * mfu)


@TRAINING_HOURS.mistake("these are days: a day has 86,400 seconds, an hour 3600")
def training_hours_in_days(parameters, tokens, cards, peak, mfu):
    return 6 * parameters * tokens / (cards * peak * mfu) / 86_400


@TRAINING_HOURS.mistake(
    "the cards run at the speed on the data sheet here; they reach only the share `mfu` of it"
)
def training_hours_at_peak(parameters, tokens, cards, peak, mfu):
    return 6 * parameters * tokens / (cards * peak) / 3600


@TRAINING_HOURS.mistake("the time is multiplied by `mfu`; a card that reaches less takes longer")
def training_hours_times_mfu(parameters, tokens, cards, peak, mfu):
    return 6 * parameters * tokens / (cards * peak) * mfu / 3600


@TRAINING_HOURS.mistake("these are the hours of a single card; all cards work at the same time")
def training_hours_of_one_card(parameters, tokens, cards, peak, mfu):
    return 6 * parameters * tokens / (peak * mfu) / 3600


@TRAINING_HOURS.mistake("6 N operations are one token's; there are D tokens, so 6 N D")
def training_hours_of_one_token(parameters, tokens, cards, peak, mfu):
    return 6 * parameters / (cards * peak * mfu) / 3600


### END SOLUTION
