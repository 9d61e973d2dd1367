"""A class that a page shows in several cells is one class in the module."""

import pytest

import build

BEGINS = "class Counter:\n    def __init__(self):\n        self.count = 0"
BETWEEN = "def helper():\n    return 1"
GOES_ON = "class Counter(Counter):  # continued\n    def add(self):\n        self.count += helper()"


def test_a_class_in_several_cells_becomes_one():
    bodies = build.with_whole_classes([BEGINS, BETWEEN, GOES_ON])
    assert len(bodies) == 2 and bodies[1] == BETWEEN
    whole = {}
    exec("\n\n\n".join(bodies), whole)
    counter = whole["Counter"]()
    counter.add()
    assert counter.count == 1 and type(counter).__mro__ == (whole["Counter"], object)


def test_the_cells_alone_make_the_same_class():
    """As in the notebook, where each cell runs by itself."""
    scope = {}
    for body in (BEGINS, BETWEEN, GOES_ON):
        exec(body, scope)
    counter = scope["Counter"]()
    counter.add()
    assert counter.count == 1


@pytest.mark.parametrize(
    "bodies", [[GOES_ON], [BETWEEN, GOES_ON], [f"{BEGINS}\n\n{BETWEEN}", GOES_ON]]
)
def test_a_class_that_nobody_began_is_refused(bodies):
    with pytest.raises(build.BuildError, match="goes on with the class Counter"):
        build.with_whole_classes(bodies)
