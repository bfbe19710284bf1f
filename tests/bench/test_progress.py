"""The board reads the folder: epochs of recorded cells, and of those under way, whoever trains them."""

import io

from rich.console import Console

from msam.bench.cells import WORK
from msam.bench.progress import Board

EPOCHS = {"a": 4, "b": 4, "c": 10}


def under_way(folder, name, epochs):
    (folder / WORK / name).mkdir(parents=True)
    lines = ['{"kind":"header"}', *('{"kind":"epoch","epoch":1}' for _ in range(epochs)), '{"kind":"epo']
    (folder / WORK / name / "record.jsonl").write_text("\n".join(lines))


def test_epochs_of_recorded_cells_and_of_those_under_way_count(tmp_path):
    under_way(tmp_path, "c", 3)
    board = Board(EPOCHS, ["a"], tmp_path)
    assert board.far() == 4 + 3
    board.done(["b", "of another grid"])
    assert board.far() == 8 + 3


def test_auxiliary_epochs_do_not_count_a_cell_beyond_its_own(tmp_path):
    under_way(tmp_path, "a", 9)
    assert Board(EPOCHS, [], tmp_path).far() == 4


def test_a_terminal_sees_cells_and_time_left_and_one_line_stays(tmp_path):
    drawn = io.StringIO()
    console = Console(file=drawn, force_terminal=True, width=150)
    with Board(EPOCHS, ["a"], tmp_path, console=console) as board:
        board.waits_for(["b", "c"])
        board.look()
        board.done(["b", "c"])
    assert "1 of 3 cells" in drawn.getvalue()
    assert "waiting for 2 cells of another process" in drawn.getvalue()
    assert "3 of 3 cells recorded, 2 of them now" in drawn.getvalue()


def test_quiet_is_quiet(tmp_path):
    drawn = io.StringIO()
    with Board(EPOCHS, [], tmp_path, quiet=True, console=Console(file=drawn, force_terminal=True)):
        pass
    assert not drawn.getvalue()
