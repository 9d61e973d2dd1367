"""Answers to the exercises of lesson 17: right ones, and wrong ones with a piece of their hint."""

import re

import torch
from torch.nn import functional as F

from tests.mistakes import right, wrong

# ---------------------------------------------------------------- our_name


# What most answers look up.
OURS = {
    "h": "blocks",
    "ln_1": "norm_1",
    "attn": "attention",
    "c_attn": "qkv",
    "c_proj": "proj",
    "ln_2": "norm_2",
    "mlp": "feed_forward",
    "c_fc": "fc",
    "wte": "token_embedding",
    "wpe": "position_embedding",
    "ln_f": "norm",
}
# The same in pieces that may be replaced one after the other.
CAREFUL = {
    "c_attn": "qkv",
    "attn": "attention",
    "mlp": "feed_forward",
    "c_": "",
    "ln_f": "norm",
    "ln_": "norm_",
    "wte": "token_embedding",
    "wpe": "position_embedding",
}


@right("our_name")
def part_by_part(name):
    parts = []
    for part in name.split("."):
        if part in OURS:
            parts.append(OURS[part])
        elif part != "transformer":
            parts.append(part)
    return ".".join(parts)


@right("our_name")
def replaced_in_a_careful_order(name):
    name = name.replace("transformer.", "").replace("h.", "blocks.")
    for theirs, ours in CAREFUL.items():
        name = name.replace(theirs, ours)
    return name


@right("our_name")
def by_a_regular_expression(name):
    modules = {
        "ln_1": "norm_1",
        "ln_2": "norm_2",
        "attn.c_attn": "attention.qkv",
        "attn.c_proj": "attention.proj",
        "mlp.c_fc": "feed_forward.fc",
        "mlp.c_proj": "feed_forward.proj",
    }
    found = re.fullmatch(r"(?:transformer\.)?h\.(\d+)\.(.+)\.(weight|bias)", name)
    if found:
        return f"blocks.{found[1]}.{modules[found[2]]}.{found[3]}"
    module, parameter = name.split(".")[-2:]
    others = {"wte": "token_embedding", "wpe": "position_embedding", "ln_f": "norm"}
    return others.get(module, "lm_head") + "." + parameter


@right("our_name")
def letters_stripped_by_good_luck(name):
    # lstrip takes away letters, not a prefix; but what follows in GPT-2 begins with none of them.
    parts = name.lstrip("transformer.").split(".")
    return ".".join(OURS.get(part, part) for part in parts)


@wrong("our_name", "is still there")
def transformer_is_a_part_like_any_other(name):
    return ".".join(OURS.get(part, part) for part in name.split("."))


@wrong("our_name", "the first part is always taken away")
def parts_from_1_on(name):
    return ".".join(OURS.get(part, part) for part in name.split(".")[1:])


@wrong("our_name", "`h` is also a letter")
def every_h_replaced(name):
    name = name.removeprefix("transformer.").replace("h", "blocks")
    for theirs, ours in CAREFUL.items():
        name = name.replace(theirs, ours)
    return name


@wrong("our_name", "became `c_attention`")
def replaced_in_the_order_of_the_list(name):
    name = name.removeprefix("transformer.").replace("h.", "blocks.")
    for theirs, ours in OURS.items():
        if theirs != "h":
            name = name.replace(theirs, ours)
    return name


@wrong("our_name", "no number and no letter")
def every_ln_is_a_norm(name):
    name = name.removeprefix("transformer.").replace("h.", "blocks.")
    for theirs, ours in CAREFUL.items():
        if theirs != "ln_f":
            name = name.replace(theirs, ours)
    return name


@wrong("our_name", "is missing")
def looked_up_as_modules(name):
    modules = {
        "ln_1": "norm_1",
        "ln_2": "norm_2",
        "attn.c_attn": "attention.qkv",
        "attn.c_proj": "attention.proj",
        "mlp.c_fc": "feed_forward.fc",
        "mlp.c_proj": "feed_forward.proj",
        "wte": "token_embedding",
        "wpe": "position_embedding",
        "ln_f": "norm",
        "lm_head": "lm_head",
    }
    name = name.replace("transformer.", "")
    module = name[: name.rindex(".")]
    if module.startswith("h."):
        _, n, module = module.split(".", 2)
        return f"blocks.{n}.{modules[module]}"
    return modules[module]


@wrong("our_name", "may have two digits")
def blocks_of_the_smallest(name):
    name = name.removeprefix("transformer.")
    for n in range(12):
        name = name.replace(f"h.{n}.", f"blocks.{n}.")
    for theirs, ours in CAREFUL.items():
        name = name.replace(theirs, ours)
    return name


@wrong("our_name", "may have two digits")
def one_digit_in_the_pattern(name):
    name = re.sub(r"^(transformer\.)?h\.(\d)\.", r"blocks.\2.", name)
    parts = name.removeprefix("transformer.").split(".")
    return ".".join(part if part == "h" else OURS.get(part, part) for part in parts)


@wrong("our_name")
def third_letter_is_the_number(name):
    name = name.removeprefix("transformer.")
    if name.startswith("h."):
        name = "blocks." + name[2] + "." + name[4:]
    return ".".join(OURS.get(part, part) for part in name.split("."))


@wrong("our_name", "it returns the text")
def twelve_letters_cut(name):
    return ".".join(OURS.get(part, part) for part in name[12:].split("."))


@wrong("our_name", "position_embedding.weight' was expected")
def two_token_tables(name):
    new = {**OURS, "wpe": "token_embedding"}
    parts = name.replace("transformer.", "").split(".")
    return ".".join(new.get(part, part) for part in parts)


@wrong("our_name", "feed_forward.proj")
def both_projections_in_attention(name):
    name = part_by_part(name)
    return name.replace("feed_forward.proj", "attention.proj")


@wrong("our_name", "lm_head.weight' was expected")
def the_tied_table(name):
    new = {**OURS, "lm_head": "token_embedding"}
    parts = name.removeprefix("transformer.").split(".")
    return ".".join(new.get(part, part) for part in parts)


@wrong("our_name", "KeyError")
def every_part_must_be_known(name):
    parts = name.removeprefix("transformer.").split(".")
    return ".".join(OURS[part] for part in parts)


@wrong("our_name", "TypeError")
def unknown_parts_are_none(name):
    parts = name.removeprefix("transformer.").split(".")
    return ".".join(OURS.get(part) for part in parts)


@wrong("our_name", "ValueError")
def always_in_a_block(name):
    _, n, rest = name.removeprefix("transformer.").split(".", 2)
    for theirs, ours in CAREFUL.items():
        rest = rest.replace(theirs, ours)
    return f"blocks.{n}.{rest}"


@wrong("our_name")
def replaced_for_nothing(name):
    name.replace("transformer.", "")
    name.replace("h.", "blocks.")
    name.replace("ln_", "norm_")
    return name


@wrong("our_name", "it returns a list")
def not_joined(name):
    parts = name.removeprefix("transformer.").split(".")
    return [OURS.get(part, part) for part in parts]


# ---------------------------------------------------------------- stack_heads


@right("stack_heads")
def sums_of_lists(queries, keys, values):
    return torch.cat(queries + keys + values, dim=0)


@right("stack_heads")
def stacked_and_flattened(queries, keys, values):
    kinds = torch.stack([torch.stack(queries), torch.stack(keys), torch.stack(values)])
    return kinds.flatten(0, 2)


@right("stack_heads")
def filled_slice_by_slice(queries, keys, values):
    H = len(queries)
    head_size, C = queries[0].shape
    weight = queries[0].new_empty(3 * H * head_size, C)
    for kind, matrices in enumerate((queries, keys, values)):
        for head, matrix in enumerate(matrices):
            start = (kind * H + head) * head_size
            weight[start : start + head_size] = matrix
    return weight


@right("stack_heads")
def row_by_row(queries, keys, values):
    rows = []
    for matrices in (queries, keys, values):
        for matrix in matrices:
            rows += list(matrix)
    return torch.stack(rows)


@wrong("stack_heads", "q, k and v of head 0")
def a_head_at_a_time(queries, keys, values):
    heads = [torch.cat(head) for head in zip(queries, keys, values)]
    return torch.cat(heads)


@wrong("stack_heads", "q, k and v of head 0")
def kinds_in_the_second_dimension(queries, keys, values):
    kinds = torch.stack([torch.stack(queries), torch.stack(keys), torch.stack(values)], dim=1)
    return kinds.reshape(-1, kinds.shape[-1])


@wrong("stack_heads", "all matrices stand side by side")
def hstack_of_all(queries, keys, values):
    return torch.hstack(queries + keys + values)


@wrong("stack_heads", "as what they compute does")
def heads_along_the_last_dimension(queries, keys, values):
    q = torch.cat(queries, dim=-1)
    k = torch.cat(keys, dim=-1)
    v = torch.cat(values, dim=-1)
    return torch.cat([q, k, v], dim=0)


@wrong("stack_heads", "`stack` makes one more dimension")
def stack_of_sums(queries, keys, values):
    return torch.stack(queries + keys + values)


@wrong("stack_heads", "this is the transpose")
def columns_for_rows(queries, keys, values):
    return torch.cat([matrix.T for matrix in queries + keys + values], dim=1)


@wrong("stack_heads", "this is head 0 alone")
def returns_in_the_loop(queries, keys, values):
    for query, key, value in zip(queries, keys, values):
        return torch.cat((query, key, value))


@wrong("stack_heads", "belongs to another place")
def keys_before_queries(queries, keys, values):
    return torch.cat([*keys, *queries, *values])


@wrong("stack_heads", "belongs to another place")
def values_before_keys(queries, keys, values):
    return torch.cat(queries + values + keys)


@wrong("stack_heads", "belongs to another place")
def heads_interleaved(queries, keys, values):
    return torch.cat([torch.stack(kind, dim=1).flatten(0, 1) for kind in (queries, keys, values)])


@wrong("stack_heads", "belongs to another place")
def last_head_first(queries, keys, values):
    weight = torch.empty(0, queries[0].shape[1], dtype=queries[0].dtype)
    for matrices in (values, keys, queries):
        for matrix in matrices:
            weight = torch.cat([matrix, weight])
    return weight


@wrong("stack_heads", "expected")
def on_their_side(queries, keys, values):
    return torch.cat([matrix.T for matrix in queries + keys + values])


@wrong("stack_heads", "`stack` makes one more dimension")
def three_stacks(queries, keys, values):
    return torch.cat([torch.stack(queries), torch.stack(keys), torch.stack(values)])


@wrong("stack_heads", "expected")
def queries_alone(queries, keys, values):
    return torch.cat(queries)


@wrong("stack_heads")
def numbers_in_another_order(queries, keys, values):
    C = queries[0].shape[1]
    return torch.cat([torch.stack(kind, dim=-1).reshape(-1, C) for kind in (queries, keys, values)])


@wrong("stack_heads")
def queries_for_all(queries, keys, values):
    return torch.cat(queries).repeat(3, 1)


@wrong("stack_heads", "expected")
def always_float32(queries, keys, values):
    head_size, C = queries[0].shape
    weight = torch.zeros(3 * len(queries) * head_size, C)
    for i, matrix in enumerate(queries + keys + values):
        weight[i * head_size : (i + 1) * head_size] = matrix
    return weight


@wrong("stack_heads")
def heads_as_wide_as_they_should_be(queries, keys, values):
    head_size, C = queries[0].shape
    weight = queries[0].new_zeros(3 * C, C)
    for head in range(C // head_size):
        rows = slice(head * head_size, (head + 1) * head_size)
        weight[:C][rows] = queries[head]
        weight[C : 2 * C][rows] = keys[head]
        weight[2 * C :][rows] = values[head]
    return weight


@wrong("stack_heads", "TypeError")
def list_of_lists(queries, keys, values):
    return torch.cat([queries, keys, values])


@wrong("stack_heads", "TypeError")
def three_lists(queries, keys, values):
    return torch.cat(queries, keys, values)


@wrong("stack_heads", "in place")
def one_list_grows(queries, keys, values):
    queries += keys
    queries += values
    return torch.cat(queries)


@wrong("stack_heads", "it returns a list of")
def not_yet_one_matrix(queries, keys, values):
    return [*queries, *keys, *values]


@wrong("stack_heads", "is there a `return`?")
def stacks_and_keeps_it(queries, keys, values):
    weight = torch.cat([*queries, *keys, *values])  # noqa: F841


# ---------------------------------------------------------------- table_for_alphabet


@right("table_for_alphabet")
def mean_as_one_more_row(table, old, new):
    table = torch.cat([table, table.mean(0, keepdim=True)])
    return table[[old.find(character) for character in new]]


@right("table_for_alphabet")
def by_a_dictionary(table, old, new):
    row_of = dict(zip(old, table))
    return torch.stack([row_of.get(character, table.mean(dim=0)) for character in new])


@right("table_for_alphabet")
def by_a_matrix_product(table, old, new):
    choice = table.new_zeros(len(new), len(old))
    for i, character in enumerate(new):
        if character in old:
            choice[i, old.index(character)] = 1
        else:
            choice[i] = 1 / len(old)
    return choice @ table


@right("table_for_alphabet")
def means_first_then_what_is_known(table, old, new):
    rows = (table.sum(0) / len(old)).repeat(len(new), 1)
    for place, character in enumerate(old):
        if character in new:
            rows[new.index(character)] = table[place]
    return rows


@wrong("table_for_alphabet", "row -1 of the table")
def looked_up_without_asking(table, old, new):
    rows = torch.empty(len(new), table.shape[1], dtype=table.dtype)
    for i in range(len(new)):
        rows[i] = table[old.find(new[i])]
    return rows


@wrong("table_for_alphabet", "gets zeros")
def one_hot_of_the_known(table, old, new):
    places = torch.tensor([old.find(character) for character in new])
    choice = F.one_hot(places + 1, len(old) + 1)[:, 1:]
    return choice.to(table.dtype) @ table


@wrong("table_for_alphabet", "the rows that are kept")
def mean_of_what_stays(table, old, new):
    stays = torch.tensor([character in new for character in old])
    mean = table[stays].mean(0)
    return torch.stack([table[old.index(c)] if c in old else mean for c in new])


@wrong("table_for_alphabet", "in the order of `old`")
def kept_ones_then_means(table, old, new):
    kept = [table[i] for i in range(len(old)) if old[i] in new]
    added = [table.mean(0) for character in new if character not in old]
    return torch.stack(kept + added)


@wrong("table_for_alphabet", "its place is 0")
def place_asked_as_a_bool(table, old, new):
    places = {character: place for place, character in enumerate(old)}
    rows = []
    for character in new:
        place = places.get(character)
        rows.append(table[place] if place else table.mean(0))
    return torch.stack(rows)


@wrong("table_for_alphabet", "but not that of character")
def copied_by_position(table, old, new):
    rows = table.mean(0).repeat(len(new), 1)
    n = min(len(old), len(new))
    rows[:n] = table[:n]
    return rows


@wrong("table_for_alphabet", "but not that of character")
def row_of_its_place_in_new(table, old, new):
    mean = table.mean(0)
    return torch.stack([table[i] if c in old else mean for i, c in enumerate(new)])


@wrong("table_for_alphabet", "but not that of character")
def in_the_order_of_the_alphabet(table, old, new):
    places = {character: place for place, character in enumerate(sorted(old))}
    mean = table.mean(0)
    return torch.stack([table[places[c]] if c in places else mean for c in new])


@wrong("table_for_alphabet", "but not that of character")
def the_first_row_for_new_ones(table, old, new):
    return table[[max(old.find(character), 0) for character in new]]


@wrong("table_for_alphabet", "give it the mean over all rows")
def mean_of_each_row(table, old, new):
    rows = table.new_zeros(len(new), table.shape[1])
    for i, character in enumerate(new):
        rows[i] = table[old.index(character)] if character in old else table.mean(1)
    return rows


@wrong("table_for_alphabet", "give it the mean over all rows")
def one_number_for_the_whole_table(table, old, new):
    rows = table.new_zeros(len(new), table.shape[1])
    for i, character in enumerate(new):
        rows[i] = table[old.index(character)] if character in old else table.mean()
    return rows


@wrong("table_for_alphabet", "give it the mean over all rows")
def drawn_anew(table, old, new):
    rows = 0.02 * torch.randn(len(new), table.shape[1], dtype=table.dtype)
    for i, character in enumerate(new):
        if character in old:
            rows[i] = table[old.index(character)]
    return rows


@wrong("table_for_alphabet", "give it the mean over all rows")
def mean_of_the_new_table(table, old, new):
    rows = table.new_zeros(len(new), table.shape[1])
    for i, character in enumerate(new):
        rows[i] = table[old.index(character)] if character in old else rows.mean(0)
    return rows


@wrong("table_for_alphabet", "give it the mean over all rows")
def median_of_the_rows(table, old, new):
    middle = table.median(0).values
    middle = middle + 0.01  # so that it is no row where there is one alone
    return torch.stack([table[old.index(c)] if c in old else middle for c in new])


@wrong("table_for_alphabet", "but not that of character")
def added_at_the_end(table, old, new):
    fresh = [character for character in new if character not in old]
    return torch.cat([table, table.mean(0).repeat(len(fresh), 1)])


@wrong("table_for_alphabet", "expected")
def known_ones_alone(table, old, new):
    return table[[old.index(character) for character in new if character in old]]


@wrong("table_for_alphabet", "expected")
def float32_rows(table, old, new):
    rows = torch.zeros(len(new), table.shape[1])
    for i, character in enumerate(new):
        rows[i] = table[old.index(character)] if character in old else table.mean(0)
    return rows


@wrong("table_for_alphabet", "ValueError")
def every_character_is_known(table, old, new):
    return torch.stack([table[old.index(character)] for character in new])


@wrong("table_for_alphabet", "ValueError")
def every_character_stays(table, old, new):
    rows = table.mean(0).repeat(len(new), 1)
    for place, character in enumerate(old):
        rows[new.index(character)] = table[place]
    return rows


@wrong("table_for_alphabet", "IndexError")
def no_more_than_before(table, old, new):
    rows = table.clone()
    for i, character in enumerate(new):
        rows[i] = table[old.index(character)] if character in old else table.mean(0)
    return rows[: len(new)]


@wrong("table_for_alphabet", "in place")
def mean_written_into_the_table(table, old, new):
    mean = table.mean(0)
    for place, character in enumerate(old):
        if character not in new:
            table[place] = mean
    return torch.stack([table[old.index(c)] if c in old else mean for c in new])


@wrong("table_for_alphabet", "it returns a list of")
def rows_in_a_list(table, old, new):
    return [table[old.index(c)] if c in old else table.mean(0) for c in new]


# ---------------------------------------------------------------- training_hours


@right("training_hours")
def forward_and_backward(parameters, tokens, cards, peak, mfu):
    forward = 2 * parameters * tokens
    backward = 2 * forward
    seconds = (forward + backward) / (mfu * peak) / cards
    return seconds / 60 / 60


@right("training_hours")
def tokens_an_hour(parameters, tokens, cards, peak, mfu):
    an_hour = 3600 * cards * mfu * peak
    return tokens / (an_hour / (6 * parameters))


@right("training_hours")
def hours_of_a_perfect_card(parameters, tokens, cards, peak, mfu):
    return parameters * tokens / (600 * peak) / cards / mfu


@wrong("training_hours", "these are seconds")
def no_hours(parameters, tokens, cards, peak, mfu):
    flops = 6 * parameters * tokens
    speed = mfu * peak * cards
    return flops / speed


@wrong("training_hours", "these are days")
def divided_by_24(parameters, tokens, cards, peak, mfu):
    hours = 6 * parameters * tokens / (mfu * peak * cards * 3600)
    return hours / 24


@wrong("training_hours", "2 in the forward pass, 4 in the backward pass")
def forward_alone(parameters, tokens, cards, peak, mfu):
    return 2 * parameters * tokens / (mfu * peak * cards * 3600)


@wrong("training_hours", "2 in the forward pass, 4 in the backward pass")
def backward_alone(parameters, tokens, cards, peak, mfu):
    return 4 * parameters * tokens / (mfu * peak * cards * 3600)


@wrong("training_hours", "6 operations for each parameter and token")
def one_operation_each(parameters, tokens, cards, peak, mfu):
    return parameters * tokens / (cards * peak) / mfu / 3600


@wrong("training_hours", "only the share `mfu`")
def as_the_data_sheet_says(parameters, tokens, cards, peak, mfu):
    return (2 + 4) * parameters * tokens / (3600 * peak) / cards


@wrong("training_hours", "a card that reaches less takes longer")
def brackets_forgotten(parameters, tokens, cards, peak, mfu):
    return 6 * parameters * tokens / 3600 / cards / peak * mfu


@wrong("training_hours", "all cards work at the same time")
def on_one_card(parameters, tokens, cards, peak, mfu):
    seconds = 6 * parameters * tokens / (peak * mfu)
    return seconds / 3600


@wrong("training_hours", "there are D tokens")
def six_for_each_parameter(parameters, tokens, cards, peak, mfu):
    flops = 6 * parameters
    return flops / (peak * mfu * cards) / 3600


@wrong("training_hours")
def six_for_each_token(parameters, tokens, cards, peak, mfu):
    return 6 * tokens / (peak * mfu * cards) / 3600


@wrong("training_hours")
def every_card_adds_its_time(parameters, tokens, cards, peak, mfu):
    return 6 * parameters * tokens * cards / (peak * mfu) / 3600


@wrong("training_hours")
def in_minutes(parameters, tokens, cards, peak, mfu):
    return 6 * parameters * tokens / (cards * peak * mfu) / 60


@wrong("training_hours")
def brackets_forgotten_altogether(parameters, tokens, cards, peak, mfu):
    return 6 * parameters * tokens / cards * peak * mfu / 3600


@wrong("training_hours")
def mfu_in_per_cent(parameters, tokens, cards, peak, mfu):
    return 6 * parameters * tokens / (cards * peak * mfu / 100) / 3600


@wrong("training_hours")
def whole_hours(parameters, tokens, cards, peak, mfu):
    return 6 * parameters * tokens // (cards * peak * mfu * 3600)


@wrong("training_hours")
def rounded(parameters, tokens, cards, peak, mfu):
    return round(6 * parameters * tokens / (cards * peak * mfu) / 3600, 1)


@wrong("training_hours")
def seconds_times_3600(parameters, tokens, cards, peak, mfu):
    return 6 * parameters * tokens / (cards * peak * mfu) * 3600


@wrong("training_hours", "it returns the text")
def with_its_unit(parameters, tokens, cards, peak, mfu):
    return f"{6 * parameters * tokens / (cards * peak * mfu) / 3600:.1f} hours"


@wrong("training_hours", "is there a `return`?")
def printed(parameters, tokens, cards, peak, mfu):
    print(6 * parameters * tokens / (cards * peak * mfu) / 3600)
