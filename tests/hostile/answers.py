"""Hostile answers to `window_mask`, {name: the text of the cell}. DECOY stands for a folder that no answer may touch.

Some end with the right answer, so that only the harm they do is judged: RIGHT_AFTER_ALL.
"""

SOLUTION = """
def window_mask(T, w):
    t, s = torch.arange(T)[:, None], torch.arange(T)
    return (s <= t) & (s > t - w)
"""


def answer(body):
    """A window_mask with this body."""
    return "def window_mask(T, w):\n" + "".join(
        f"    {line}\n" for line in body.strip().split("\n")
    )


ANSWERS = "REPOSITORY/chargpt_lib/exercises/answers/single_head.py"
PAGE = "REPOSITORY/notebooks/source/03_single_head.py"
SOLVED_NOTEBOOK = "REPOSITORY/notebooks/solutions/03_single_head.ipynb"


def steals(how):
    """Gets a text that holds the right answer by the expression `how`, and runs the function in it."""
    return answer(f"""
import ctypes, json, os, re, subprocess
for root, folders, files in os.walk("REPOSITORY"):
    pass
text = {how}
source = re.search(r"def window_mask.*?\\n(?=\\S)", text, re.S).group()
names = {{}}
exec(source, {{"torch": torch}}, names)
return names["window_mask"](T, w)
""")


CHEATS = {
    "patches_check": """
import chargpt_lib.exercises.judge
chargpt_lib.exercises.judge.judge = lambda *a: "✓"
"""
    + answer("return None"),
    "defines_check": "def check(*a):\n    print('✓ window_mask')\n\njudge = check\n"
    + answer("return torch.ones(T, T).bool()"),
    "patches_torch": """
torch.equal = torch.isclose = torch.allclose = lambda *a, **k: torch.tensor(True)
torch.Tensor.__eq__ = lambda a, b: torch.ones(a.shape).bool()
"""
    + answer("return torch.ones(T, T).bool()"),
    "patches_json": """
import json
json.dumps = lambda value, **k: '["value", true, ""]'
"""
    + answer("return True"),
    "imports_the_lesson": "from chargpt_lib.single_head import causal_mask\n"
    + answer("return causal_mask(T).triu(1 - w)"),
    "imports_the_answer": """
from chargpt_lib.exercises.answers.single_head import window_mask as right

def window_mask(T, w):
    return right(T, w)
""",
    "imports_the_key": """
import chargpt_lib.exercises.keys.single_head
from chargpt_lib.exercises.judge import EXERCISES

def window_mask(T, w):
    return EXERCISES["window_mask"].answer(T, w)
""",
    "reads_the_answer": steals(f"open({ANSWERS!r}).read()"),
    "reads_the_answer_with_os": steals(f"os.read(os.open({ANSWERS!r}, 0), 99999).decode()"),
    "reads_the_answer_with_torch": steals(
        f"bytes(torch.from_file({ANSWERS!r}, size=900, dtype=torch.uint8).tolist()).decode()"
    ),
    "reads_the_answer_with_cat": steals(f"subprocess.check_output(['cat', {ANSWERS!r}]).decode()"),
    "reads_the_answer_with_c": steals(
        "(lambda libc, buffer: (libc.read("
        f"libc.open({ANSWERS!r}.encode(), 0), buffer, 99999), buffer.value.decode())[1]"
        ")(ctypes.CDLL(None), ctypes.create_string_buffer(99999))"
    ),
    "reads_the_source": steals(f"open({PAGE!r}).read()"),
    "reads_the_solution": steals(
        "chr(10).join(''.join(cell['source']) for cell in "
        f"json.load(open({SOLVED_NOTEBOOK!r}))['cells'])"
    ),
    "links_to_the_answer": steals(
        f"(os.path.islink('link') or os.symlink({ANSWERS!r}, 'link'), open('link').read())[1]"
    ),
    "asks_the_frames": answer("""
import gc, sys
frame = sys._getframe()
while frame:
    for value in frame.f_locals.values():
        if type(value).__name__ == "Case":
            return value.want
    frame = frame.f_back
for thing in gc.get_objects():
    if type(thing).__name__ == "Case":
        return thing.want
return torch.zeros(T, T).bool()
"""),
    "reads_the_seed": answer("""
import glob, os
seen = [open(path, "rb").read() for path in glob.glob("/proc/[0-9]*/environ") + glob.glob("/proc/[0-9]*/cmdline")]
torch.manual_seed(int(os.environ["CHARGPT_SEED"]))
return torch.rand(T, T) > 0.5
"""),
    "reads_the_trusted_notebook": answer("""
import glob, json
for path in glob.glob("/tmp/chargpt-*/*.ipynb") + glob.glob("../../*/verdicts.json"):
    open(path, "w").write("{}")
return None
"""),
    "knows_the_small_cases": answer("""
known = {1: [[True]], 2: [[True, False], [True, True]]}
return torch.tensor(known.get(T, [[True] * T] * T))
"""),
    "equals_everything": """
class Yes:
    shape, dtype = (1, 1), torch.bool
    def __eq__(self, other):
        return True
    def __bool__(self):
        return True
"""
    + answer("return Yes()"),
    "equals_everything_as_tensor": """
class Yes(torch.Tensor):
    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        return True
"""
    + answer("return torch.ones(T, T).as_subclass(Yes)"),
    "speaks_for_the_worker": answer("""
import os, socket
for fd in range(3, 64):
    try:
        os.write(fd, b'["value", true, ""]\\n["value", {"tensor": "bool", "shape": [1, 1], "data": "AQ=="}, ""]\\n' * 20)
    except OSError:
        pass
return torch.zeros(T, T).bool()
"""),
    "says_it_is_right": answer("raise Exception('✓ window_mask')"),
    "html_in_its_error": answer("raise Exception('<script>alert(1)</script>')"),
    "another_magic": "%%answer average_past\n" + SOLUTION,
    "evades_the_audit_hook_and_forks": """
import re, sys
import chargpt_lib.grading.isolation
chargpt_lib.grading.isolation.REFUSED_EVENTS = re.compile("(?!)")
"""
    + answer(
        "import os\nfor _ in range(60):\n    if os.fork() == 0:\n        while True:\n            pass"
    ),
    "evades_the_audit_hook_and_reads": """
import os, re
import chargpt_lib.grading.isolation
chargpt_lib.grading.isolation.REFUSED_EVENTS = re.compile("(?!)")
chargpt_lib.grading.isolation.PATH_CHANGING_EVENTS = ()
os.path.realpath = os.fsdecode = lambda path: os.getcwd()
"""
    + steals(f"open({ANSWERS!r}).read()"),
    "trickles": answer("""
import os, time
while True:
    try:
        time.sleep(0.3)
        for fd in range(3, 64):
            try:
                os.write(fd, b" ")
            except OSError:
                pass
    except BaseException:
        pass
"""),
    "encodes_what_crashes": """
import chargpt_lib.grading.worker
chargpt_lib.grading.worker.encode = lambda value: {"tensor": "quint8", "shape": [1], "data": "AA=="}
"""
    + answer("return 1"),
    "raises_a_surrogate": answer("raise Exception('\\ud800')"),
    "returns_a_huge_number": answer("return 10**400"),
    "returns_many_for_one": answer("return [torch.ones(3), 10**5000, float('nan')]"),
    "fills_the_disk": answer(
        "import os\nfor i in range(10**6):\n    open(f'x{i}', 'wb').write(bytes(2**20))"
    ),
    "digs_a_deep_hole": answer(
        "import os\nfor _ in range(3000):\n    os.mkdir('d')\n    os.chdir('d')"
    ),
    "hides_memory": answer(
        "import os\nhoard = [os.memfd_create('x') for _ in range(50)]\nfor fd in hoard:\n"
        "    os.write(fd, bytes(2**26))"
    ),
    "connects_to_a_local_socket": answer(
        "import socket\nsocket.socket(socket.AF_UNIX).connect('/tmp/x')\nreturn None"
    ),
    "exits_when_defined": "import sys\nsys.exit(0)\n" + SOLUTION,
    "exits_when_called": answer("import sys\nsys.exit(0)"),
    "exits_hard": answer("import os\nos._exit(0)"),
    "raises_keyboard_interrupt": answer("raise KeyboardInterrupt"),
    "endless_when_defined": "while True:\n    pass\n" + SOLUTION,
    "endless_when_called": answer("while True:\n    pass"),
    "endless_and_stubborn": answer("""
while True:
    try:
        while True:
            pass
    except BaseException:
        pass
"""),
    "endless_in_c": answer("return sum(range(10**14))"),
    "sleeps": answer("import time\ntime.sleep(10**6)"),
    "eats_memory": answer("return torch.ones(10**11)"),
    "eats_memory_slowly": answer("hoard = []\nwhile True:\n    hoard.append(bytearray(10**8))"),
    "forks": answer("import os\nwhile True:\n    os.fork()"),
    "forks_around_the_audit_hook": answer(
        "import multiprocessing.process, _posixsubprocess\n"
        "_posixsubprocess.fork_exec([b'/bin/sleep'], [b'/bin/sleep'], *[None] * 20)"
    ),
    "starts_threads": answer(
        "import threading, time\nwhile True:\n    threading.Thread(target=time.sleep, args=(999,)).start()"
    ),
    "floods_the_output": answer("while True:\n    print('O damp goose!' * 10**6)"),
    "floods_the_descriptor": answer(
        "import os\nwhile True:\n    os.write(1, b'x' * 10**6)\n    os.write(2, b'x' * 10**6)"
    ),
    "returns_a_flood": answer("return torch.zeros(10**8)"),
    "returns_a_deep_list": answer(
        "deep = []\nfor _ in range(10**5):\n    deep = [deep]\nreturn deep"
    ),
    "returns_itself": answer("loop = []\nloop.append(loop)\nreturn loop"),
    "returns_a_function": answer("return lambda: None"),
    "kills_its_parent": answer(
        "import os, signal\nos.kill(os.getppid(), signal.SIGKILL)\nos.kill(-1, signal.SIGKILL)"
    ),
    "calls_home": answer(
        "import socket\nsocket.create_connection(('127.0.0.1', 80), timeout=1)\nreturn None"
    ),
    "not_python": "def window_mask(T, w)\n    return",
    "borrows": "def window_mask(T, w):\n    return mask_of_another_cell(T, w)",
    "lone_surrogate": "def window_mask(T, w):\n    return '\\ud800'\n# \ud800",
}

# These would earn a ✓ where nothing isolates them.
THEFTS = (
    "imports_the_lesson",
    "imports_the_answer",
    "imports_the_key",
    "reads_the_answer",
    "reads_the_answer_with_os",
    "reads_the_answer_with_torch",
    "reads_the_answer_with_cat",
    "reads_the_answer_with_c",
    "reads_the_source",
    "reads_the_solution",
    "links_to_the_answer",
    "evades_the_audit_hook_and_reads",
)

RIGHT_AFTER_ALL = {
    "deletes_files": "import shutil\nshutil.rmtree('DECOY', ignore_errors=True)\nshutil.rmtree('REPOSITORY/tests/hostile', ignore_errors=True)\n"
    + SOLUTION,
    "writes_files": """
import contextlib, os
for act in (lambda: open("DECOY/note.txt", "w").write("goose"), lambda: os.rename("DECOY/note.txt", "DECOY/goose.txt"),
            lambda: open("DECOY/new.txt", "w"), lambda: torch.save([1], "DECOY/saved.pt"), lambda: os.chmod("DECOY", 0),
            lambda: os.truncate("DECOY/note.txt", 0), lambda: torch.from_file("DECOY/note.txt", shared=True, size=4)):
    with contextlib.suppress(Exception):
        act()
"""
    + SOLUTION,
    "prints_a_lot": SOLUTION + "\nfor _ in range(1000):\n    print('O damp goose!' * 1000)\n",
    "tries_it_out": SOLUTION
    + "\nprint(window_mask(3, 2))\nshow(window_mask(5, 2))\ncheck('window_mask', window_mask)\n",
    "uses_an_earlier_lesson": "from chargpt_lib.data import CharTokenizer\n" + SOLUTION,
    "uses_an_optimizer": "torch.optim.AdamW([nn.Parameter(torch.ones(1))]).step()\n" + SOLUTION,
    "nbval_marker": "# NBVAL_SKIP\n" + SOLUTION + "# NBVAL_IGNORE_OUTPUT\n",
    "prompts": SOLUTION.replace("\n", "\r\n") + "# In [1]: >>> 🦆\n",
    "writes_in_its_folder": "open('scratch.txt', 'w').write('goose')\n" + SOLUTION,
}
