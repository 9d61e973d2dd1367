"""The exercises of all lessons: enough of them, each saying what it is, each with a check, none of them ahead of its lesson."""

import re

import pytest

import build
from chargpt_lib.exercises.judge import EXERCISES, load_answer_keys

load_answer_keys()
LESSONS = [lesson for lesson in build.read_lessons(build.HERE) if lesson.name[0].isdigit()]
CELLS = {
    cell.metadata["exercise"]: (lesson, lesson.cells.index(cell))
    for lesson in LESSONS
    for cell in lesson.cells
    if "exercise" in cell.metadata
}


def test_there_are_enough():
    for lesson in LESSONS:
        assert len([name for name, (other, _) in CELLS.items() if other is lesson]) >= 4, (
            lesson.name
        )
    assert len(CELLS) >= 30 and set(CELLS) == set(EXERCISES)
    minutes = [exercise.minutes for exercise in EXERCISES.values()]
    assert min(minutes) <= 2 and max(minutes) >= 20


@pytest.mark.parametrize("name", CELLS)
def test_an_exercise_says_what_it_is(name):
    """Stars, minutes and reason stand before it, and are those of the key; the check comes right after it."""
    (lesson, place), exercise = CELLS[name], EXERCISES[name]
    before = next(
        cell
        for cell in reversed(lesson.cells[:place])
        if cell.cell_type == "markdown" and "★" in cell.source
    )
    assert "### Exercise: " in before.source, lesson.name
    assert re.search(
        rf"^★{{{exercise.stars}}} · {exercise.minutes} minutes · .{{20,}}", before.source, re.M
    ), before.source
    assert exercise.stars == (
        1 if exercise.minutes <= 5 else 2 if exercise.minutes <= 10 else 3
    ) or exercise.minutes in (5, 10)
    assert lesson.cells[place + 1].source.startswith(f'check("{name}", {name})')
    assert exercise.lesson == lesson.module and exercise.answer.__doc__


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.name)
def test_nothing_hangs_on_an_answer(lesson):
    """No other cell uses the learner's function, unless `passed` has been asked."""
    names = [name for name, (other, _) in CELLS.items() if other is lesson]
    for cell in lesson.cells:
        if cell.cell_type == "code" and "exercise" not in cell.metadata:
            used = [
                name
                for name in names
                if re.search(rf"\b{name}\b", re.sub(r'check\("\w+", \w+\)', "", cell.source))
            ]
            assert not used or "passed(" in cell.source, (used, cell.source)
    assert any(cell.source.startswith("progress()") for cell in lesson.cells)


def test_hints_are_few_short_and_fit_their_places():
    for exercise in EXERCISES.values():
        hints = [*exercise.mistakes, *exercise.symptoms]
        assert 3 <= len(hints) <= 7, f"{exercise.name} has {len(hints)} hints: three to seven"
        for hint in hints:
            assert "\n" not in hint and len(hint) <= 140, f"one line, 140 characters: {hint}"


def test_the_teachers_page_lists_them_all():
    page = (build.HERE.root / "notebooks" / "TEACHING.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d\d) \| `(\w+)` \| (★+) \| (\d+) \| .{20,} \|$", page, re.M)
    wanted = [
        (CELLS[name][0].name[:2], name, "★" * exercise.stars, str(exercise.minutes))
        for name, exercise in ((name, EXERCISES[name]) for name in CELLS)
    ]
    assert sorted(rows) == sorted(wanted)
    for lesson in LESSONS:
        minutes = sum(
            exercise.minutes for exercise in EXERCISES.values() if exercise.lesson == lesson.module
        )
        row = re.search(rf"^\| {lesson.name[:2]} [\w -]+ \| \d+ \| {minutes} \|", page, re.M)
        assert row, f"in Pacing, the exercises of {lesson.name} take {minutes} minutes"


def test_only_symptoms_name_places():
    for exercise in EXERCISES.values():
        for hint in exercise.mistakes:
            assert hint == hint.format(), (exercise.name, hint)
        for hint in exercise.symptoms:
            hint.format(*range(9))
