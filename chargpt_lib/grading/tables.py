"""The marks as tables: grades.csv for people and their spreadsheets, and a file to import for a
learning platform.

The columns are those that the platforms look for:

- Canvas reads the first columns by their names, finds a learner by ID, and takes every further
  column for an assignment (its gradebook's own export has the same form). The number in a file's
  name is this ID.
- Moodle's worksheet for offline grading needs Identifier, Grade and Last modified (grade). The
  number in a folder's name is the participant's.
- Gradescope has no import of marks from outside; the columns are those of its own export, by which
  other tools join.
"""

import csv
import io

from chargpt_lib.course import page_of_module

MAX_POINTS = 100  # a score is a percentage

# What a spreadsheet takes for the beginning of a formula; the wide signs are those of East Asian
# keyboards.
FORMULA_SIGNS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


def harmless(text):
    """A cell's text that no spreadsheet takes for a formula."""
    if text.startswith(FORMULA_SIGNS):
        return f"'{text}"
    return text


def _write_csv(rows):
    """The text of a table.

    Each cell is in quotes, or a spreadsheet that separates by ; would find cells within a cell.
    """
    table = io.StringIO()
    writer = csv.writer(table, quoting=csv.QUOTE_ALL)
    for row in rows:
        writer.writerow([harmless(cell) for cell in row])
    return table.getvalue()


def grades_csv(batch):
    """The text of grades.csv: a row for each submission; without marks where there were no answers
    to mark.
    """
    rows = [["submission", "score", *batch["weights"], "learner", "problem"]]
    for name, record in sorted(batch["submissions"].items()):
        score = ""
        points = ["" for _ in batch["weights"]]
        if record["answers"]:
            score = f"{record['score']:g}"
            points = [
                "1" if record["marks"].get(exercise) == "✓" else "0"
                for exercise in batch["weights"]
            ]
        learner = _learner_name(record)
        problem = "; ".join(record["problems"])
        rows.append([name, score, *points, learner, problem])
    # With a byte order mark Excel reads UTF-8, and umlauts are umlauts.
    return "\ufeff" + _write_csv(rows)


# ---------------------------------------------------------------- for learning platforms


def _learner_name(record):
    """The name of a record's learner; empty where the file's name did not say."""
    learner = record.get("learner")
    return learner["name"] if learner is not None else ""


def _name_for_import(record, name):
    """The name of a record's learner or, where it is not known, that of the submission."""
    learner_name = _learner_name(record)
    return learner_name if learner_name else name


def _learner_id(record, platform):
    """The number or user name that a platform gives a record's learner; empty where another
    platform named the file.
    """
    learner = record.get("learner")
    if learner is not None and learner["platform"] == platform:
        return learner["id"]
    return ""


def _final_records(batch):
    """{submission: record} of those that count: marked without trouble, and of each learner the
    last one.

    Of several that are equally late, which the names do not tell apart, the best one.
    """
    final = {}
    for name, record in sorted(batch["submissions"].items()):
        if not record["ran"]:
            continue  # a 0 for a file that could not be read would be wrong
        key = name
        order = (0, record["score"])
        learner = record.get("learner")
        if learner is not None:
            key = (learner["platform"], learner["id"])
            order = (learner["attempt"], record["score"])
        if key not in final or order > final[key][0]:
            final[key] = (order, name, record)
    return {name: record for _, name, record in final.values()}


def _canvas_rows(records, page):
    rows = [
        ["Student", "ID", "SIS User ID", "SIS Login ID", "Section", page],
        ["    Points Possible", "", "", "", "", str(MAX_POINTS)],
    ]
    for name, record in records.items():
        student = _name_for_import(record, name)
        user = _learner_id(record, "canvas")
        rows.append([student, user, "", "", "", f"{record['score']:g}"])
    return rows


def _moodle_comment(record):
    """The marks in words. Nothing in it comes from the learner, for Moodle shows it as HTML."""
    words = {"✓": "right", "✗": "not right yet", "○": "not attempted"}
    parts = []
    for mark, meaning in words.items():
        names = [name for name, given in record["marks"].items() if given == mark]
        if names:
            parts.append(f"{meaning}: {', '.join(names)}")
    return "; ".join(parts)


def _moodle_rows(records, page):
    rows = [
        [
            "Identifier",
            "Full name",
            "Grade",
            "Maximum Grade",
            "Last modified (grade)",
            "Feedback comments",
        ]
    ]
    for name, record in records.items():
        participant = _learner_id(record, "moodle")
        identifier = f"Participant {participant}" if participant else ""
        full_name = _name_for_import(record, name)
        grade = f"{record['score']:.2f}"
        # No date: Moodle then overwrites no mark, where its form does not say that it shall.
        modified = ""
        rows.append(
            [identifier, full_name, grade, str(MAX_POINTS), modified, _moodle_comment(record)]
        )
    return rows


def _gradescope_rows(records, page):
    rows = [["First Name", "Last Name", "SID", "Email", page, f"{page} - Max Points"]]
    for name, record in records.items():
        first, _, last = _name_for_import(record, name).rpartition(" ")
        learner = record.get("learner")
        student_id = learner["id"] if learner is not None else ""
        rows.append([first, last, student_id, "", f"{record['score']:g}", str(MAX_POINTS)])
    return rows


EXPORTS = {"canvas": _canvas_rows, "moodle": _moodle_rows, "gradescope": _gradescope_rows}


def export_csv(batch, platform):
    """(the text of a platform's import file, how many submissions of the batch it leaves out)."""
    records = _final_records(batch)
    page = page_of_module(batch["lesson"]).name
    text = _write_csv(EXPORTS[platform](records, page))
    return text, len(batch["submissions"]) - len(records)
