"""Files as students and their tools send them: {name: (bytes, the share of its right answers that must be found)}.

notebook(answers) is a learner's notebook of lesson 03 with the given answers in its exercise cells.
"""

import copy
import json

import nbformat


def variants(learners, answers, others):
    """learners: the notebook that learners get; answers: {exercise: right text}; others: another lesson's solution."""

    def filled(change=lambda notebook: None):
        notebook = copy.deepcopy(learners)
        for cell in notebook["cells"]:
            cell["outputs"] = [] if cell["cell_type"] == "code" else cell.get("outputs")
            if name := cell["metadata"].get("exercise"):
                cell["source"] = answers[name]
            if cell["cell_type"] != "code":
                cell.pop("outputs")
        notebook = change(notebook) or notebook
        return json.dumps(notebook).encode()

    def exercises(notebook):
        return [cell for cell in notebook["cells"] if "exercise" in cell["metadata"]]

    def fake_outputs(notebook):
        for cell in exercises(notebook):
            name = cell["metadata"]["exercise"]
            cell["source"] = f"def {name}(*args):\n    raise NotAttempted"
        for cell in notebook["cells"]:
            if cell["cell_type"] == "code":
                cell["outputs"] = [
                    nbformat.v4.new_output("stream", text="✓ " + name) for name in answers
                ]

    def fake_checks(notebook):
        fake_outputs(notebook)
        for cell in notebook["cells"]:
            if str(cell["source"]).startswith("check("):
                cell["source"] = "print('✓')"

    def colab(notebook):
        notebook["nbformat_minor"] = 0
        notebook["metadata"] = {
            "colab": {"provenance": []},
            "kernelspec": {"name": "python3", "display_name": "Python 3"},
        }
        for cell in notebook["cells"]:
            cell["metadata"] = {
                "id": cell.pop("id"),
                "colab": {"base_uri": "https://localhost:8080/"},
            }
            cell["source"] = str(cell["source"]).splitlines(keepends=True)
            if cell["cell_type"] == "code":
                data = {
                    "application/vnd.google.colaboratory.intrinsic+json": {"type": "string"},
                    "text/plain": "'✓'",
                }
                cell["outputs"] = [
                    {
                        "output_type": "execute_result",
                        "execution_count": 1,
                        "metadata": {},
                        "data": data,
                    }
                ]

    def format_3(notebook):
        cells = []
        for cell in notebook["cells"]:
            if cell["cell_type"] == "code":
                cells.append(
                    {
                        "cell_type": "code",
                        "input": str(cell["source"]).splitlines(keepends=True),
                        "language": "python",
                        "metadata": cell["metadata"],
                        "outputs": [],
                        "collapsed": False,
                        "prompt_number": 1,
                    }
                )
            else:
                cells.append(
                    {"cell_type": "markdown", "metadata": {}, "source": [str(cell["source"])]}
                )
        return {
            "nbformat": 3,
            "nbformat_minor": 0,
            "metadata": {"name": ""},
            "worksheets": [{"cells": cells, "metadata": {}}],
        }

    def format_4_0(notebook):
        notebook["nbformat_minor"] = 0
        for cell in notebook["cells"]:
            del cell["id"]

    def nothing_kept(notebook):
        format_4_0(notebook)
        for cell in notebook["cells"]:
            cell["metadata"] = {}

    def only_ids(notebook):
        for cell in notebook["cells"]:
            cell["metadata"] = {}

    def wrong_kernel(notebook):
        notebook["metadata"]["kernelspec"] = {
            "name": "julia-1.9",
            "display_name": "Julia",
            "language": "julia",
        }

    def missing(notebook):
        notebook["cells"] = [
            cell
            for cell in notebook["cells"]
            if cell["metadata"].get("exercise") != list(answers)[0]
        ]

    def duplicated(notebook):
        for cell in exercises(notebook):
            other = {
                **copy.deepcopy(cell),
                "id": cell["id"] + "x",
                "source": f"print('trying {cell['id']}')",
            }
            notebook["cells"].insert(notebook["cells"].index(cell) + 1, other)

    def reordered(notebook):
        notebook["cells"].reverse()

    def odd_metadata(notebook):
        for cell in notebook["cells"]:
            if "exercise" not in cell["metadata"]:
                cell["metadata"] = {
                    "exercise": ["window_mask", 3],
                    "tags": "exercise",
                    "id": {"a": 1},
                }

    def blank(notebook):
        for cell in exercises(notebook):
            name = cell["metadata"]["exercise"]
            cell["source"] = f"def {name}(*args):\n    raise NotAttempted"

    def empty_cells(notebook):
        for cell in exercises(notebook):
            cell["source"] = ""

    def null_sources(notebook):
        for cell in notebook["cells"]:
            if "exercise" not in cell["metadata"]:
                cell["source"] = None

    def answered_below(notebook):
        for cell in exercises(notebook):
            text = {**copy.deepcopy(cell), "id": "", "metadata": {}}
            cell["source"] = f"def {cell['metadata']['exercise']}(*args):\n    raise NotAttempted"
            notebook["cells"].insert(notebook["cells"].index(cell) + 1, text)

    whole = filled()
    return {
        "all_right": (whole, 1),
        "all_blank": (filled(blank), 0),
        "fake_outputs": (filled(fake_outputs), 0),
        "fake_checks": (filled(fake_checks), 0),
        "colab": (filled(colab), 1),
        "format_3": (filled(format_3), 1),
        "format_4_0": (filled(format_4_0), 1),
        "nothing_kept": (filled(nothing_kept), 1),
        "only_ids": (filled(only_ids), 1),
        "wrong_kernel": (filled(wrong_kernel), 1),
        "missing_cell": (filled(missing), 1 - 1 / len(answers)),
        "duplicated_cells": (filled(duplicated), 1),
        "reordered": (filled(reordered), 1),
        "odd_metadata": (filled(odd_metadata), 1),
        "byte_order_mark": (b"\xef\xbb\xbf" + whole, 1),
        "empty_cells": (filled(empty_cells), 0),
        "null_sources": (filled(null_sources), 1),
        "answered_below": (filled(answered_below), 1),
        "truncated": (whole[: len(whole) // 2], None),
        "empty": (b"", None),
        "not_json": (b"O damp goose!", None),
        "not_utf8": (b"\xff\xfe" + whole, None),
        "a_list": (b"[1, 2, 3]", None),
        "deep": (b"[" * 100_000, None),
        "cells_are_text": (b'{"cells": ["a", "b"]}', None),
        "another_lesson": (others, None),
    }
