"""What the README shows is true: its ten lines run as they stand."""

import re

import torch

import chargpt_lib
from build import HERE

README = (HERE.root / "README.md").read_text(encoding="utf-8")


def test_the_ten_lines_train_sample_and_plot(tmp_path, monkeypatch, capsys):
    [code] = re.findall(r"^```python\n(.*?)^```$", README, re.M | re.S)
    assert "time_budget=60" in code and len(code.strip().splitlines()) <= 13
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(1337)
    exec(code.replace("time_budget=60", "steps=2"), {})
    assert "O damp goose!" in capsys.readouterr().out
    assert (tmp_path / "attention.png").read_bytes().startswith(b"\x89PNG")


def test_the_public_names_are_there_and_documented():
    for name in chargpt_lib.__all__:
        assert getattr(chargpt_lib, name).__doc__, name
    assert set(chargpt_lib.__all__) <= set(dir(chargpt_lib))
    promised = "GPT GPTConfig load_corpus CharTokenizer train generate record_attention".split()
    assert set(promised) <= set(chargpt_lib.__all__)
