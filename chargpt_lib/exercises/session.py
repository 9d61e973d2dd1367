"""The notebook's IPython session: which cell an answer comes from, and how a judgement leaves no trace in it."""

import inspect
import linecache
import os
import sys
from contextlib import contextmanager

from chargpt_lib.exercises.cells import defines, with_definitions_above


def current_session():
    """The IPython session in which this runs, or None."""
    ipython = sys.modules.get("IPython")
    if ipython is None:
        return None
    return ipython.get_ipython()


def answer_text(answer, name):
    """The text of the answer to an exercise, as the grader would read it; None where it comes from no cell.

    It is what the learner typed. The function itself knows only what IPython made of it, in which magics are calls.
    """
    function = inspect.unwrap(answer)  # without decorators
    if function.__module__ != "__main__":
        return None
    file = function.__code__.co_filename
    compiled = "".join(linecache.getlines(file))
    shell = current_session()
    if shell is None:
        if os.path.exists(file) or not compiled:
            return None
        return compiled
    history = list(shell.history_manager.input_hist_raw)
    is_cell = file in getattr(shell.compile, "_filename_map", ())
    if os.path.exists(file) and not is_cell:
        return None  # from a script that was run
    text = None
    for number in reversed(range(len(history))):
        if defines(history[number], name):
            # %%time and %%prun compile a cell under a name that tells nothing. Then the last definition holds.
            if not compiled or not is_cell or _was_compiled_to(shell, number, compiled):
                text = history[number]
                break
    if text is None:
        # It ran without entering the history, or its cell only defines what another one gives the name of the answer.
        text = compiled
        if not defines(text, name):
            for cell in history:
                if defines(cell, name):
                    text = cell
    if not text:
        return None
    joined, _ = with_definitions_above(text, name, history)
    return joined


def _was_compiled_to(shell, number, compiled):
    """Is this what IPython made of the cell of this number?"""
    if shell.history_manager.input_hist_parsed[number].rstrip() == compiled.rstrip():
        return True
    raw = shell.history_manager.input_hist_raw[number].lstrip()
    if not raw.startswith("%%"):
        return False
    # %%capture runs what stands below it as another cell.
    _, _, body = raw.partition("\n")
    return shell.transform_cell(body).rstrip() == compiled.rstrip()


@contextmanager
def no_trace():
    """What an answer does in here leaves no trace in the notebook, however it ends: no name, no display, no plot."""
    shell = current_session()
    if shell is None:
        yield
        return
    from IPython.core.displaypub import CapturingDisplayPublisher

    names_before = dict(shell.user_ns)
    publisher = shell.display_pub
    pyplot = sys.modules.get("matplotlib.pyplot")
    figures_before = []
    show = None
    if pyplot is not None:
        figures_before = pyplot.get_fignums()
        show = pyplot.show
    try:
        shell.display_pub = CapturingDisplayPublisher()
        if pyplot is not None:
            # The notebook's own would show, and close, the figures of the learner, too.
            pyplot.show = _show_nothing
        yield
    finally:
        shell.display_pub = publisher
        if pyplot is not None:
            pyplot.show = show
        for name in set(shell.user_ns) - set(names_before):
            del shell.user_ns[name]
        shell.user_ns.update(names_before)
        pyplot = sys.modules.get("matplotlib.pyplot")  # the answer may have imported it
        if pyplot is not None:
            for number in set(pyplot.get_fignums()) - set(figures_before):
                pyplot.close(number)


def _show_nothing(*args, **kwargs):
    pass
