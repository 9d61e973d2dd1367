"""The checks by themselves; what they refuse in use is in the tests of checkpoints, recipe and trainer."""

from dataclasses import dataclass

import pytest
import torch

from chargpt_lib.checks import (
    check_ids,
    check_same_model,
    check_weights,
    corrupt_file,
    missing_checkpoint,
    read_config,
    read_pointers,
)
from chargpt_lib.data import CharTokenizer

NAME = r"step-\d{8}"


@dataclass
class TinyConfig:
    width: int = 4
    rate: float = 0.0


def read(path):
    return read_config(path, ("tiny",), lambda model_type: TinyConfig)


def test_a_config_is_read_by_the_class_of_its_kind(tmp_path):
    path = tmp_path / "config.json"
    path.write_text('{"model_type": "tiny", "width": 8, "rate": 1}')
    assert read(path) == TinyConfig(8, 1)


@pytest.mark.parametrize(
    "text, message",
    [
        ("[1]", "expected a JSON object"),
        ('{"width": 8}', "model_type is 'gpt'; it is one of tiny"),
        ('{"model_type": "tiny", "depth": 8}', "'depth' is not a TinyConfig field"),
        ('{"model_type": "tiny", "width": true}', "width is True, but must be of type int"),
        ('{"model_type"', "Copy the file again"),
    ],
)
def test_any_other_config_is_refused_by_name(tmp_path, text, message):
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        read(path)
    assert str(path) in str(caught.value)


def test_pointers_never_lead_out_of_the_folder(tmp_path):
    path = tmp_path / "checkpoints.json"
    assert read_pointers(path, NAME) == {}
    path.write_text('{"last": "step-00000100"}')
    assert read_pointers(path, NAME) == {"last": "step-00000100"}
    path.write_text('{"last": "../../step-00000100"}')
    with pytest.raises(ValueError, match="damaged"):
        read_pointers(path, NAME)


def test_a_tied_matrix_may_be_missing_under_one_of_its_names():
    table = torch.ones(2, 3)
    own = {"first": table, "last": table, "gain": torch.ones(3)}
    check_weights("file", {"first": table, "gain": torch.ones(3)}, own)
    with pytest.raises(ValueError, match="missing weight gain"):
        check_weights("file", {"first": table}, own)
    with pytest.raises(ValueError, match="unexpected weight other"):
        check_weights("file", {"other": table}, own)
    with pytest.raises(ValueError, match=r"gain has shape \[3\] \(torch.float64\)"):
        check_weights("file", {"first": table, "gain": torch.ones(3).double()}, own)


def test_every_difference_of_two_models_is_named():
    saved = {"model_type": "gpt", "n_layer": 2, "n_head": 4}
    own = {"model_type": "gpt", "n_layer": 3, "n_head": 2}
    with pytest.raises(ValueError) as caught:
        check_same_model("run", saved, CharTokenizer("ab"), own, CharTokenizer("ac"))
    for difference in ("n_layer is 2 there, 3 here", "n_head is 4 there, 2 here", "id 1 is 'b'"):
        assert difference in str(caught.value)
    check_same_model("run", saved, CharTokenizer("ab"), saved, CharTokenizer("ab"))


def test_messages_say_what_is_there(tmp_path):
    (tmp_path / "notes.txt").touch()
    assert "which holds notes.txt" in str(missing_checkpoint(tmp_path, "best"))
    assert str(corrupt_file("x", "too short")).startswith("x: too short. Copy the file again")
    with pytest.raises(ValueError, match="1-D int64"):
        check_ids(torch.zeros(2, 2))
