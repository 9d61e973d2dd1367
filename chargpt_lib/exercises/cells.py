"""From the text of a notebook's cell to Python: what IPython adds to the language is taken out, and never run.

The judge in the notebook and the grader both read answers through this module, so that they judge the same source. It
is ordinary code and does not ask IPython, because a worker has none, and because a judge must not run a magic: `%timeit`
would run the learner's code outside of the time limit, and in the notebook's own namespace.
"""

import ast
import builtins
import re
import symtable

# Cell magics whose body is Python that runs in the notebook.
PYTHON_CELL_MAGICS = ("capture", "prun", "time", "timeit")
# A statement of Python begins with none of these; to IPython they are magics, shell commands, help and calls.
COMMAND_SIGNS = ("%", "!", "?", ",", ";", "/")

MAX_CELL_MAGICS = 10  # one below the other; each is read in a pass of its own

FIRST_PYTHON_PROMPT = re.compile(r"\s*>>>(?:[ \t]|$)")
PYTHON_PROMPT = re.compile(r"\s*(?:>>>|\.\.\.)(?:[ \t]|$)")
IPYTHON_PROMPT = re.compile(r"(?:(?:\[nav\]|\[ins\])? )?In \[\d+\]: ?|\s*\.{3,}: ?")
CELL_MAGIC = re.compile(r"%%\s*(\w*)(\?*)")
# `files = !ls` and `seconds = %timeit -o f()`, which no statement of Python looks like
COMMAND_ASSIGNMENT = re.compile(r"([^'\"#=]*[^'\"#=!<>])=\s*(?:%\s*\w|!)")
# What decides where a statement ends: escapes, quotes, comments and brackets.
MARKS_IN_LINE = re.compile(r"\\(?:.|$)|'''|\"\"\"|['\"#()\[\]{}]")

# What Python raises for a text that it cannot parse; NotPython is a ValueError.
UNREADABLE = (SyntaxError, ValueError, RecursionError, MemoryError)
# What a cell finds without defining it: Python's own names, and those that `compare.define` puts there.
CELL_NAMES = ("math", "torch", "nn", "F", "NotAttempted", "check", "progress", "passed", "display")
PROVIDED = {*dir(builtins), *CELL_NAMES, "get_ipython", "__name__"}


class NotPython(ValueError):
    """Raised for a cell whose text is something else than Python, such as a file's or a shell's."""


# ---------------------------------------------------------------- one cell


def python_source(text):
    """The Python in the text of a cell, as the learner wrote it, with as many lines as before.

    Prompts and a common indentation are removed, magics, shell commands and questions are replaced by `pass`.

    Raises: NotPython where the cell begins with a cell magic that does not run its body as Python here.
    """
    lines = re.split(r"\r\n|\r|\n", text)
    first = _clean_beginning(lines)
    _drop_commands(lines, first)
    return "\n".join(lines)


def _clean_beginning(lines):
    """Removes indentation, prompts and cell magics in place. Returns the index of the first line of Python."""
    first = 0
    for _ in range(MAX_CELL_MAGICS + 1):
        while first < len(lines) and not lines[first].strip():
            first += 1
        if first == len(lines):
            return first
        _dedent(lines, first)
        _strip_prompts(lines, first)
        magic = CELL_MAGIC.match(lines[first])
        if magic is None or magic[2]:  # %%time? asks for help
            return first
        if magic[1] not in PYTHON_CELL_MAGICS:
            raise NotPython(
                f"the cell begins with {magic[0]}, so its text is not run as Python: "
                "write the function in a cell without that line"
            )
        # What follows a cell magic is read like a cell of its own, which may begin with another one.
        lines[first] = ""
        first += 1
    raise NotPython(f"the cell begins with more than {MAX_CELL_MAGICS} cell magics: leave some out")


def _dedent(lines, first):
    """Removes the indentation of the first line from all lines that have it, as IPython does."""
    indentation = lines[first][: len(lines[first]) - len(lines[first].lstrip(" \t"))]
    if not indentation:
        return
    for i in range(first, len(lines)):
        lines[i] = lines[i].removeprefix(indentation)


def _strip_prompts(lines, first):
    """Removes the prompts of a session that was copied: `>>> ` and `...`, or `In [3]: ` and `...: `."""
    if _has_python_prompt(lines, first):
        prompt = PYTHON_PROMPT
    elif any(IPYTHON_PROMPT.match(line) for line in lines[first : first + 2]):
        prompt = IPYTHON_PROMPT
    else:
        return
    for i in range(first, len(lines)):
        found = prompt.match(lines[i])
        if found:
            lines[i] = lines[i][found.end() :]


def _has_python_prompt(lines, first):
    """Does a line begin with `>>>`? In a docstring it is an example, and no prompt."""
    quote = None
    for line in lines[first:]:
        if quote is None and FIRST_PYTHON_PROMPT.match(line):
            return True
        quote, _, _ = _scan(line, quote, 0)
    return False


def _drop_commands(lines, first):
    """Replaces, in place, each statement that only IPython understands."""
    quote = None  # of the string in which a line begins
    depth = 0  # of the brackets that are open
    continued = False  # does the line before end with a backslash?
    i = first
    while i < len(lines):
        inside = quote is not None or depth > 0 or continued
        quote_after, depth_after, code = _scan(lines[i], quote, depth)
        replacement = None
        if not inside:
            asks = quote_after is None and code.endswith("?")
            replacement = _replaced_command(lines[i], i, asks)
        if replacement is None:
            quote = quote_after
            depth = depth_after
            continued = quote is None and code.endswith("\\")
        else:
            last = i
            while lines[last].endswith("\\") and last + 1 < len(lines):
                last += 1
            lines[i] = replacement
            lines[i + 1 : last + 1] = [""] * (last - i)
            i = last
        i += 1


def _replaced_command(line, index, asks):
    """What stands for a line at which a statement begins; None where that is Python.

    Raises: NotPython for a cell magic of another language.
    """
    statement = line.lstrip(" \t\f")
    indentation = line[: len(line) - len(statement)]
    magic = CELL_MAGIC.match(statement)
    if magic and not magic[2] and magic[1] not in PYTHON_CELL_MAGICS:
        raise NotPython(
            f"line {index + 1} of the cell is {magic[0]}, and what follows is not Python: "
            "a cell magic belongs into the first line of a cell of its own"
        )
    if statement.startswith(COMMAND_SIGNS) or asks:
        return f"{indentation}pass"
    assignment = COMMAND_ASSIGNMENT.match(line)
    if assignment:
        return f"{assignment[1]}= None"
    return None


def _scan(line, quote, depth):
    """(the quote of the string in which the line ends or None, the depth of brackets at its end, its text of code).

    Its text of code: without a comment and without the space before that.
    """
    end = len(line)
    escaped_end = False
    for mark in MARKS_IN_LINE.finditer(line):
        sign = mark[0]
        if sign.startswith("\\"):
            escaped_end = mark.end() == len(line) and len(sign) == 1
        elif quote is not None:
            # Of three quotes, a string with one quote ends at the first.
            if sign == quote or (len(quote) == 1 and sign == 3 * quote):
                quote = None
        elif sign == "#":
            end = mark.start()
            break
        elif sign in "([{":
            depth += 1
        elif sign in ")]}":
            depth = max(depth - 1, 0)
        else:
            quote = sign
    if quote is not None and len(quote) == 1 and not escaped_end:
        quote = None  # a string with one quote ends with its line
    return quote, depth, line[:end].rstrip()


# ---------------------------------------------------------------- what a cell defines


def defines(text, name):
    """Does a cell define this name, by `def` or by an assignment? Also where its Python has errors."""
    try:
        source = python_source(text)
    except NotPython:
        return False
    word = re.escape(name)
    statement = rf"(?:(?:async[ \t]+)?def[ \t]+{word}\b|{word}[ \t]*(?::[^=\n]*)?=(?!=))"
    if re.search(rf"^{statement}", source, re.M):
        return True
    # Where it is indented, it may be in a `with`, or be a method or a variable of something else.
    if not re.search(rf"^[ \t]+{statement}", source, re.M):
        return False
    tree = _parse(text)
    return tree is not None and name in _bound_names(tree)


def _parse(text):
    """The syntax tree of a cell, or None where it is not Python."""
    try:
        return ast.parse(python_source(text))
    except UNREADABLE:
        return None


def _bound_names(tree):
    """The names that a cell binds, those inside of its functions and classes left out."""
    names = set()
    nodes = list(tree.body)
    while nodes:
        node = nodes.pop()
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            for alias in node.names:
                names.add((alias.asname or alias.name).split(".")[0])
        else:
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                names.add(node.id)
            nodes += ast.iter_child_nodes(node)
    return names


def _missing_names(text):
    """The names that a cell uses and does not define, those left out that Python or a lesson's first cell provides."""
    used = set()
    try:
        tables = [symtable.symtable(python_source(text), "the cell", "exec")]
    except UNREADABLE:
        return used
    bound = {symbol.get_name() for symbol in tables[0].get_symbols() if _binds(symbol)}
    while tables:
        table = tables.pop()
        tables += table.get_children()
        for symbol in table.get_symbols():
            outermost = table.get_type() == "module"
            if symbol.is_referenced() and (outermost or symbol.is_global()):
                used.add(symbol.get_name())
    return used - bound - PROVIDED


def _binds(symbol):
    return symbol.is_assigned() or symbol.is_imported() or symbol.is_namespace()


def _only_defines(text, tree):
    """Does a cell only define functions, classes and constants, or import? A lesson's exported cell does not count."""
    if tree is None or text.lstrip().startswith("#| export"):
        return False
    for statement in tree.body:
        if isinstance(statement, (ast.Assign, ast.AnnAssign)):
            if any(isinstance(node, ast.Call) for node in ast.walk(statement)):
                return False
        elif isinstance(statement, ast.Expr):
            if not isinstance(statement.value, ast.Constant):
                return False
        elif not isinstance(
            statement,
            (
                ast.FunctionDef,
                ast.AsyncFunctionDef,
                ast.ClassDef,
                ast.Import,
                ast.ImportFrom,
                ast.Pass,  # what stands for a magic
            ),
        ):
            return False
    return True


# ---------------------------------------------------------------- a cell that was split


def with_definitions_above(text, name, cells):
    """(the answer's text, the indices of the cells that it was joined with).

    Where a learner splits the cell of an exercise, her helper functions stay in a cell above the answer. So an answer
    may use what is defined directly above a cell that defines it: in cells that do nothing but define, with no other
    cell between. Everything else above belongs to the lesson, and an answer does without.

    text: of the cell that defines the answer. cells: the texts of all code cells, in the notebook in the order in which
    they ran, in a file as they stand there.
    """
    needed = _missing_names(text)
    if not needed:
        return text, []
    helpers = _helper_cells(name, cells)
    bound = set()
    taken = []
    # From the last to the first, since of two definitions the later one holds.
    for index in sorted(helpers, reverse=True):
        names = _bound_names(helpers[index])
        if names & needed:
            taken.insert(0, index)
            bound |= names
            needed = (needed | _missing_names(cells[index])) - bound
    if not taken:
        return text, []
    parts = [python_source(cells[index]).strip("\n") for index in taken]
    parts.append(python_source(text).strip("\n"))
    return "\n\n\n".join(parts) + "\n", taken


def _helper_cells(name, cells):
    """{index: syntax tree} of the cells that an answer may use."""
    trees = {}
    accepted_names = set()
    above = []  # indices of the cells directly above that only define something
    for index, text in enumerate(cells):
        if defines(text, name):
            for helper in above:
                accepted_names |= _bound_names(trees[helper])
            above = []
            continue
        if not text.strip():
            continue
        tree = _parse(text)
        if _only_defines(text, tree):
            trees[index] = tree
            above.append(index)
        else:
            above = []
    # A helper that was mended later, and ran alone, is still a helper.
    return {index: tree for index, tree in trees.items() if _bound_names(tree) & accepted_names}
