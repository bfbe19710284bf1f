"""Data of one's own as a specification: from a table of files to batches."""

import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from msam.data import _folder_files, _folder_split, _folder_table, _media
from msam.data._folder_split import Vocabulary
from msam.data._loaders import in_epoch
from msam.data._prepared import opened, read_manifest
from msam.data._splits import stratified
from msam.data.folder import check, folder, prepare
from msam.train import config, train
from msam.types import Batch
from tests.fixtures import folder as fixture
from tests.fixtures._codecs import write_video
from tests.fixtures._command import msam
from tests.fixtures._learning import surprise

ROWS = fixture.rows()
SHORT = {"rate": 8000, "seconds": 0.5, "workers": 1}
COLUMN = {name: place for place, name in enumerate(["id", "label", *fixture.KINDS])}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The files of 24 samples, not to be changed."""
    return fixture.write_files(tmp_path_factory.mktemp("folder"))


@pytest.fixture(scope="module")
def ready(files, tmp_path_factory):
    table = fixture.write_table(files, ROWS, name="whole.csv")
    return str(prepare(table, str(tmp_path_factory.mktemp("prepared") / "folder"), **SHORT))


@pytest.fixture(scope="module")
def gaps(files, tmp_path_factory):
    """Every third sample lacks its sound, s01 all but its words."""
    rows = [list(row) for row in ROWS]
    for row in rows[::3]:
        row[COLUMN["sound"]] = ""
    rows[1][2:] = ["", "", "", rows[1][COLUMN["words"]], "", ""]
    table = fixture.write_table(files, rows, name="gaps.csv")
    return str(prepare(table, str(tmp_path_factory.mktemp("gaps") / "out"), **SHORT))


@pytest.fixture
def few(files, tmp_path):
    """Six samples, free to spoil."""
    for row in ROWS[:6]:
        for path in row[2:]:
            (tmp_path / path).parent.mkdir(exist_ok=True)
            shutil.copy(files / path, tmp_path / path)
    return tmp_path


def only(names: list[str], rows: list[list[str]] = ROWS) -> tuple[list[list[str]], list[str]]:
    """Return the table's cells and header with some columns alone."""
    places = [0, 1, *(COLUMN[name] for name in names)]
    return [[row[place] for place in places] for row in rows], [fixture.HEADER[place] for place in places]


def with_column(name: str, cells: list[str], rows: list[list[str]], header: list[str]) -> tuple:
    return [[*row, cell] for row, cell in zip(rows, cells, strict=True)], [*header, name]


class TestPreparing:
    def test_kinds_are_told_by_endings_and_by_the_header(self, ready):
        found = opened(ready, "folder")
        assert found.parameters["kinds"] == fixture.KINDS
        assert list(found.parameters["kinds"]) == list(fixture.KINDS)
        assert found.manifest["classes"] == ["cat", "dog"]
        assert found.labels == tuple(number % 2 for number in range(24))

    def test_every_file_becomes_what_its_kind_says(self, files, ready):
        found, place = opened(ready, "folder"), 5
        row, name = found.rows[place], found.ids[place]
        forms = _folder_files.Forms(fixture.KINDS, 8000, 0.5, 1, 256, 50, {})
        sound = _media.read_audio(files / f"files/{name}.wav", 8000)
        np.testing.assert_array_equal(found.arrays["sound"][row], forms.spectrogram(sound))
        picture = _media.picture(files / f"files/{name}.jpg")
        np.testing.assert_array_equal(found.frames["picture"].frame(row, 0), picture)
        frames = [frame for _, frame in _media.frames(files / f"files/{name}.mp4", 1)]
        assert found.frames["film"].count(row) == len(frames) == 2
        np.testing.assert_array_equal(found.frames["film"].frame(row, 1), frames[1])
        vector = np.load(files / f"files/{name}.npy").astype(np.float32)
        np.testing.assert_array_equal(found.arrays["vector"][row], vector)
        tokens = np.load(files / f"files/{name}.tokens.npy")
        np.testing.assert_array_equal(found.arrays["tokens"][row], np.pad(tokens, (0, 50 - len(tokens))))
        words = (files / f"files/{name}.txt").read_text().split()
        assert found.arrays["words"][row].tolist()[:4] == [*map(_folder_files.mark, words), 0]

    def test_the_number_of_workers_and_the_place_change_nothing(self, files, few, tmp_path):
        here = read_manifest(prepare(fixture.write_table(few, ROWS[:6]), str(tmp_path / "a"), **SHORT), "folder")
        table = fixture.write_table(files, ROWS[:6], name="six.csv")
        there = read_manifest(prepare(table, str(tmp_path / "b"), **{**SHORT, "workers": 2}), "folder")
        assert here["fingerprint"] == there["fingerprint"]

    def test_what_was_done_is_kept_when_it_goes_on(self, few, tmp_path, monkeypatch):
        table, decode, seen = fixture.write_table(few, ROWS[:6]), _folder_files.decode, []

        def stopped(item, *, forms):
            seen.append(item.id)
            if len(seen) == 4:
                raise KeyboardInterrupt
            return decode(item, forms=forms)

        monkeypatch.setattr(_folder_files, "decode", stopped)
        with pytest.raises(KeyboardInterrupt):
            prepare(table, str(tmp_path / "out"), **SHORT)
        prepare(table, str(tmp_path / "out"), **SHORT)
        assert seen == ["s00", "s01", "s02", "s03", "s03", "s04", "s05"]

    @pytest.mark.parametrize(
        "options", [{"rate": 16000}, {"seconds": 0.4}, {"fps": 5}, {"short_side": 16}, {"length": 2}]
    )
    def test_every_option_changes_the_fingerprint(self, few, tmp_path, options):
        table = fixture.write_table(few, ROWS[:2])
        one = read_manifest(prepare(table, str(tmp_path / "one"), **SHORT), "folder")
        other = read_manifest(prepare(table, str(tmp_path / "other"), **{**SHORT, **options}), "folder")
        assert one["fingerprint"] != other["fingerprint"]

    @pytest.mark.parametrize(
        "change",
        [
            lambda rows: rows[2].__setitem__(1, "dog"),
            lambda rows: rows[2].__setitem__(2, rows[3][2]),
            lambda rows: rows[2].__setitem__(3, "h"),
            lambda rows: rows[2].__setitem__(4, "test"),
            lambda rows: rows.pop(2),
            lambda rows: rows.append(["s99", *rows[2][1:]]),
        ],
    )
    def test_a_table_that_has_changed_is_not_passed_over(self, few, tmp_path, change):
        rows = [[*row[:2], row[COLUMN["vector"]], "", "train"] for row in ROWS[:6]]
        rows[5][4] = "test"
        rows[4][4] = "test"
        header, out = ["id", "label", "vector", "group", "split"], str(tmp_path / "out")
        first = prepare(fixture.write_table(few, rows, header), out, workers=1)
        assert prepare(fixture.write_table(few, rows, header), out, workers=1) == first
        change(rows)
        with pytest.raises(
            ValueError, match=r"was prepared from other rows than .*data.csv has now: 1 differ, e.g. 's"
        ):
            prepare(fixture.write_table(few, rows, header), out, workers=1)

    def test_a_table_that_was_mended_goes_on_where_it_stopped(self, few, tmp_path, monkeypatch):
        decode, seen, out = _folder_files.decode, [], str(tmp_path / "out")
        monkeypatch.setattr(
            _folder_files, "decode", lambda item, *, forms: seen.append(item.id) or decode(item, forms=forms)
        )
        rows, header = only(["vector", "words"], ROWS[:6])
        rows[3][2] = "files/none.npy"
        with pytest.raises(ValueError, match=r"no vector at files/none\.npy"):
            prepare(fixture.write_table(few, rows, header), out, workers=1)
        rows[3][2] = ROWS[3][COLUMN["vector"]]
        prepare(fixture.write_table(few, rows, header), out, workers=1)
        assert seen == ["s00", "s01", "s02", "s04", "s05", "s03"]

    def test_paths_may_be_absolute_or_lead_out_of_the_folder(self, few, tmp_path):
        rows, header = only(["vector"], ROWS[:6])
        rows[0][2] = str(few / rows[0][2])
        (few / "tables").mkdir()
        rows[1:] = [[a, b, f"../{path}"] for a, b, path in rows[1:]]
        table = fixture.write_table(few / "tables", rows, header)
        assert len(opened(prepare(table, str(tmp_path / "out"), workers=1), "folder").ids) == 6

    def test_options_out_of_range(self, few, tmp_path):
        table = fixture.write_table(few, ROWS[:6])
        for options, words in (
            ({"rate": 0}, "`rate` must be >= 1"),
            ({"seconds": 0.0}, "`seconds` must be > 0"),
            ({"rate": 1000, "seconds": 0.1}, r"`rate` \* `seconds` must be >= 512 samples.*1000 \* 0.1 = 100"),
            ({"length": 0}, "`length` must be >= 1"),
            ({"missing": "skipp"}, "Did you mean 'skip'"),
        ):
            with pytest.raises(ValueError, match=words):
                prepare(table, str(tmp_path / "out"), **{**SHORT, **options})


class TestTables:
    def test_marks_line_ends_quotes_and_tabs_do_not_matter(self, tmp_path):
        plain = b"id,label,v\na,1,x.npy\nb,2,y.npy\n"
        for number, (content, ending) in enumerate(
            [
                (plain, "csv"),
                (b"\xef\xbb\xbf" + plain.replace(b"\n", b"\r\n"), "csv"),
                (b"\n" + plain.replace(b",", b" , ").rstrip(), "csv"),
                (plain.replace(b"x.npy", b'"x.npy"'), "csv"),
                (plain.replace(b",", b"\t"), "tsv"),
            ]
        ):
            file = tmp_path / f"{number}.{ending}"
            file.write_bytes(content)
            found = _folder_table.read(file)
            assert [(row.id, row.label, row.files) for row in found.rows] == [
                ("a", "1", {"v": tmp_path / "x.npy"}),
                ("b", "2", {"v": tmp_path / "y.npy"}),
            ]
            assert found.kinds == {"v": "array"}

    def test_integers_are_ordered_as_such_and_other_labels_by_the_alphabet(self, tmp_path):
        for labels, wanted in (
            (["10", "9", "-1", "09"], ("-1", "9", "10")),
            (["b", "a", "10", "9"], ("10", "9", "a", "b")),
        ):
            rows = [[f"s{number}", label, "x.npy"] for number, label in enumerate(labels)]
            assert _folder_table.read(Path(fixture.write_table(tmp_path, rows, ["id", "label", "v"]))).classes == wanted

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("", "must have a header and a row for each sample, found nothing"),
            ("id,label,v\n", "found a header only"),
            ("id,Label,v\na,1,x.npy\n", r"found no 'label'\. Did you mean 'Label'\? Found: id, Label, v"),
            ("label,v\n1,x.npy\n", "found no 'id'"),
            ("id;label;v\na;1;x.npy\n", "separated by commas, found ';'"),
            ("id,label\na,1\n", "must have a column of paths for each modality"),
            ("id,label,v,v\na,1,x.npy,y.npy\n", "every column once, found 'v' again"),
            ("id,label,v,v:array\na,1,x.npy,y.npy\n", "every column once, found 'v' again"),
            ("id,label,my.v\na,1,x.npy\n", "the name of a modality must be of letters.*received 'my.v'"),
            ("id,label,\na,1,x.npy\n", "the name of a modality must be of letters.*received ''"),
            ("id,label,type\na,1,x.npy\n", "none that torch uses, received 'type'"),
            ("id,label,v:aray\na,1,x.npy\n", "Unknown kind of column 'v' 'aray'. Did you mean 'array'"),
            ("id,label,v\na,1,x.npy\na,2,y.npy\n", "1 of 2 rows with a fault: line 3: the id 'a' is that of line 2"),
            ("id,label,v\na,1,x.npy\nb,2\n", "line 3: a row must have 3 cells as the header has, received 2"),
            ("id,label,v\n,1,x.npy\nb,,y.npy\n", "2 of 2 rows .*line 2: the id is empty; line 3: the label is empty"),
            ("id,label,v\na,1,\nb,2,y.npy\n", "line 2: 'a' has no modality at all"),
            ("id,label,split,v\na,1,trian,x.npy\n", "unknown split 'trian'. Did you mean 'train'"),
            ("id,label,v\na,1,x.npy\nb,1,y.npy\n", "at least two classes, found only '1'"),
            ("id,label,v\na,1,x.xyz\n", "the ending of 'x.xyz' in column 'v' stands for no kind.*v:text"),
            ("id,label,v\na,1,x.wav\nb,2,x.jpg\n", r"files of one kind, found 'x.wav' \(audio\) and 'x.jpg' \(image\)"),
            ("id,label,v:text\na,1,x.txt\nb,2,x.npy\n", "words or numbers of words .* found 'x.txt' and 'x.npy'"),
            ("id,label,v,w\na,1,x.npy,\nb,2,x.npy,\n", "column 'w' must have a path for some samples"),
            ("id,label,split,v\na,1,train,x.npy\nb,2,,y.npy\n", "the split of every sample or of none, found line 3"),
            ("id,label,split,v\na,1,train,x.npy\nb,2,train,y.npy\n", "found none of test"),
            (
                "id,label,split,v\na,1,train,x.npy\nb,2,test,y.npy\n",
                r"samples of train, found '2' \(line 3\) in test only",
            ),
            (
                "id,label,split,group,v\na,1,train,g,x.npy\nb,2,train,h,y.npy\nc,1,test,g,z.npy\n",
                r"a group must be in one part, found 'g' in train \(line 2\) and test \(line 4\)",
            ),
        ],
    )
    def test_faults_are_named_with_their_lines(self, tmp_path, text, words):
        (tmp_path / "data.csv").write_text(text)
        with pytest.raises(ValueError, match=words) as error:
            prepare(str(tmp_path / "data.csv"), str(tmp_path / "out"))
        assert "data.csv" in str(error.value) or "kind of column" in str(error.value)
        assert not (tmp_path / "out").exists()
        assert [finding.kind for finding in check(str(tmp_path / "data.csv")).findings] == ["broken"]

    def test_of_many_faults_ten_are_named(self, tmp_path):
        rows = [[f"s{number}", "", "x.npy"] for number in range(30)]
        with pytest.raises(ValueError, match=r"30 of 30 rows .*line 11: the label is empty; and 20 more\."):
            _folder_table.read(Path(fixture.write_table(tmp_path, rows, ["id", "label", "v"])))

    def test_what_is_no_table(self, tmp_path):
        (tmp_path / "latin.csv").write_bytes("id,label,v\na,Köln,x.npy\n".encode("latin-1"))
        (tmp_path / "data.xlsx").write_bytes(b"PK")
        for name, words in (
            ("latin.csv", "must be in UTF-8"),
            ("data.xlsx", "must be a .csv or .tsv file"),
            ("none.csv", "found none at"),
            ("", "found a folder at"),
        ):
            with pytest.raises(ValueError, match=words):
                prepare(str(tmp_path / name), str(tmp_path / "out"))


class TestFiles:
    @pytest.mark.parametrize(
        ("name", "spoil", "words"),
        [
            ("s02.wav", lambda path: path.unlink(), "no sound at files/s02.wav"),
            ("s02.wav", lambda path: path.write_bytes(path.read_bytes()[:-2000]), "is truncated"),
            ("s02.mp4", lambda path: path.write_bytes(path.read_bytes()[:900]), "cannot be decoded"),
            ("s02.jpg", lambda path: path.write_bytes(b"no picture"), "cannot be decoded"),
            ("s02.txt", lambda path: path.write_text("  \n"), "must hold at least one word"),
            ("s02.txt", lambda path: path.write_bytes(b"caf\xe9"), "must be text in UTF-8"),
            ("s02.npy", lambda path: path.write_bytes(path.read_bytes()[:-8]), "it is broken or none"),
            ("s02.npy", lambda path: path.write_bytes(b""), "it is broken or none"),
            ("s02.npy", lambda path: np.save(path, np.array([1, np.nan] * 3)), "must hold finite numbers"),
            ("s02.npy", lambda path: np.save(path, np.full(6, 1e300)), "too large for float32"),
            ("s02.npy", lambda path: np.save(path, np.array(["a"] * 6)), "must be a .npy file of numbers"),
            ("s02.tokens.npy", lambda path: np.save(path, np.array([1, -1])), "from -1 to 1"),
            ("s02.tokens.npy", lambda path: np.save(path, np.array([40000])), "from 40000 to 40000"),
            ("s02.tokens.npy", lambda path: np.save(path, np.array([1.0])), "must hold a row of integers"),
            ("s02.tokens.npy", lambda path: np.save(path, np.ones((2, 2), int)), "must hold a row of integers"),
        ],
    )
    def test_missing_and_broken_files_end_it_or_leave_the_sample_out(self, few, tmp_path, name, spoil, words):
        spoil(few / "files" / name)
        table = fixture.write_table(few, ROWS[:6])
        with pytest.raises(ValueError, match="1 of 6 items of folder") as error:
            prepare(table, str(tmp_path / "out"), **SHORT)
        assert f"s02: {words}" in str(error.value) or (words in str(error.value) and name in str(error.value))
        manifest = read_manifest(prepare(table, str(tmp_path / "out"), **SHORT, missing="skip"), "folder")
        assert [item["id"] for item in manifest["items"]] == ["s00", "s01", "s03", "s04", "s05"]
        assert manifest["failures"][0]["id"] == "s02"

    def test_nothing_is_unpickled(self, few, tmp_path):
        class Trap:
            def __reduce__(self):
                return (Path.touch, (tmp_path / "sprung",))

        for content in (pickle.dumps(Trap()), None):
            path = few / "files" / "s02.npy"
            path.write_bytes(content) if content else np.save(path, np.array([Trap()] * 6, object), allow_pickle=True)
            with pytest.raises(ValueError, match="s02"):
                prepare(fixture.write_table(few, ROWS[:6]), str(tmp_path / "out"), **SHORT)
            assert not (tmp_path / "sprung").exists()

    def test_a_video_without_sound_as_audio(self, few, tmp_path):
        rows, header = only(["film"], ROWS[:6])
        table = fixture.write_table(few, rows, [*header[:2], "film:audio"])
        with pytest.raises(ValueError, match="must hold sound, found video only"):
            prepare(table, str(tmp_path / "out"), **SHORT)

    def test_the_sound_of_a_video(self, few, tmp_path):
        rows, header = only(["film"], ROWS[:4])
        time = np.arange(32000) / 16000
        for number, row in enumerate(rows):
            frames = np.full((20, 32, 48, 3), 100, np.uint8)
            write_video(few / row[2], frames, 10, 0.3 * np.sin(2 * np.pi * (400 + 900 * (number % 2)) * time), 16000)
        rows, header = with_column("voice:audio", [row[2] for row in rows], rows, header)
        found = opened(prepare(fixture.write_table(few, rows, header), str(tmp_path / "out"), **SHORT), "folder")
        assert found.parameters["kinds"] == {"film": "video", "voice": "audio"}
        loudest = found.arrays["voice"][:].mean(2).argmax(1)
        assert loudest.tolist() == pytest.approx([26, 83, 26, 83], abs=2)

    def test_arrays_of_two_shapes_are_both_named(self, few, tmp_path):
        np.save(few / "files" / "s04.npy", np.zeros((2, 3)))
        with pytest.raises(ValueError, match=r"one shape, found \(6,\) in .*s00.npy and \(2, 3\) in .*s04.npy"):
            prepare(fixture.write_table(few, ROWS[:6]), str(tmp_path / "out"), **SHORT)


class TestSplits:
    def test_drawn_ones_keep_the_shares_of_the_classes(self, ready):
        found = folder(root=ready, valid=0.25, test=1 / 3, size=32)
        assert [sorted(getattr(found, part).labels) for part in ("train", "valid", "test")] == [
            [0] * 6 + [1] * 6,
            [0] * 2 + [1] * 2,
            [0] * 4 + [1] * 4,
        ]
        ids = [name for part in (found.train, found.valid, found.test) for name in part.ids]
        assert sorted(ids) == [row[0] for row in ROWS]

    def test_a_seed_draws_others_and_the_fingerprint_says_so(self, ready):
        found = [folder(root=ready, seed=seed, size=32) for seed in (0, 0, 1)]
        assert found[0].fingerprint == found[1].fingerprint != found[2].fingerprint
        assert found[0].test.ids == found[1].test.ids != found[2].test.ids

    @pytest.mark.parametrize("given", [False, True])
    def test_the_order_of_the_rows_decides_nothing(self, files, tmp_path, given):
        rows, header = only(["vector", "words"])
        rows[3][2] = rows[8][3] = ""
        rows, header = with_column("group", [f"g{number // 2}" for number in range(24)], rows, header)
        if given:
            rows, header = with_column("split", ["train"] * 18 + ["test"] * 6, rows, header)
        mixed = [rows[place] for place in np.random.default_rng(0).permutation(len(rows))]
        found = []
        for number, order in enumerate((rows, mixed)):
            table = fixture.write_table(files, order, header, f"order{number}{given}.csv")
            found.append(folder(root=str(prepare(table, str(tmp_path / str(number)), workers=1)), valid=0.2))
        assert found[0].fingerprint == found[1].fingerprint
        for part in ("train", "valid", "test"):
            one, other = (getattr(data, part) for data in found)
            assert one.ids == other.ids
            for first, second in zip(one[[0, 1]].inputs.values(), other[[0, 1]].inputs.values(), strict=True):
                assert torch.equal(first, second)

    def test_a_group_is_in_one_part(self, files, tmp_path):
        groups = [f"g{number // 4}" if number < 20 else "" for number in range(24)]
        rows, header = with_column("group", groups, *only(["vector"]))
        out = prepare(fixture.write_table(files, rows, header, "grouped.csv"), str(tmp_path / "out"), workers=1)
        found = folder(root=str(out), valid=0.25)
        of = dict(zip((row[0] for row in rows), groups, strict=True))
        parts = [{of[name] for name in part.ids} - {""} for part in (found.train, found.valid, found.test)]
        assert all(parts)
        assert sum(map(len, parts)) == 5

    def test_given_ones_are_kept(self, files, tmp_path):
        given = ["train"] * 12 + ["valid"] * 6 + ["test"] * 6
        rows, header = with_column("split", given, *only(["vector"]))
        out = prepare(fixture.write_table(files, rows, header, "given.csv"), str(tmp_path / "out"), workers=1)
        found = folder(root=str(out), seed=3, test=0.5)
        assert found.train.ids == [row[0] for row in ROWS[:12]]
        assert found.valid.ids == [row[0] for row in ROWS[12:18]]
        assert found.test.ids == [row[0] for row in ROWS[18:]]

    def test_validation_alone_is_drawn_where_only_test_is_given(self, files, tmp_path):
        rows, header = with_column("split", ["train"] * 18 + ["test"] * 6, *only(["vector"]))
        out = prepare(fixture.write_table(files, rows, header, "half.csv"), str(tmp_path / "out"), workers=1)
        found = folder(root=str(out), valid=1 / 3)
        assert len(found.valid) == 6
        assert found.test.ids == [row[0] for row in ROWS[18:]]
        assert not set(found.valid.ids) & set(found.test.ids)

    def test_a_class_without_samples_of_train_is_refused(self, files, tmp_path):
        rows, header = only(["vector"])
        rows = [[name, "rare" if name == "s00" else label, path] for name, label, path in rows]
        rows, header = with_column("group", ["a", "b", "c"] * 8, rows, header)
        out = prepare(fixture.write_table(files, rows, header, "rare.csv"), str(tmp_path / "out"), workers=1)
        held = next(seed for seed in range(20) if _held_out("rare", str(out), seed))
        with pytest.raises(
            ValueError, match=r"Every class must have samples of train, found 'rare' in (valid|test) only"
        ):
            folder(root=str(out), seed=held, valid=0.4, test=0.4)


def _held_out(name: str, out: str, seed: int) -> bool:
    """Tell whether no sample of a class would be of train."""
    found = opened(out, "folder")
    groups = [item["group"] for item in found.manifest["items"]]
    test = stratified(found.labels, 0.4, seed, groups)
    rest = [place for place in range(len(groups)) if place not in test]
    valid = stratified([found.labels[place] for place in rest], 0.4, seed, [groups[place] for place in rest])
    kept = [place for number, place in enumerate(rest) if number not in valid]
    return found.manifest["classes"].index(name) not in [found.labels[place] for place in kept]


class Bags:
    """A split of token numbers as counts of each."""

    def __init__(self, split, modality):
        self.split, self.modality = split, modality

    def __len__(self):
        return len(self.split)

    def __getitem__(self, index):
        batch = self.split[index]
        counts = torch.stack([row.bincount(minlength=40) for row in batch.inputs[self.modality]])
        return Batch({self.modality: counts.float()}, batch.target)


class TestLoading:
    def test_batches_have_the_stated_shapes_and_kinds(self, ready):
        found = folder(root=ready, frames=2, size=40)
        batch = found.train[[3, 0]]
        assert found.shapes == {
            "sound": (1, 257, 22),
            "picture": (3, 40, 40),
            "film": (3, 2, 40, 40),
            "words": (50,),
            "vector": (6,),
            "tokens": (50,),
        }
        assert list(batch.inputs) == list(found.shapes)
        for name, shape in found.shapes.items():
            assert batch.inputs[name].shape == (2, *shape)
            assert batch.inputs[name].dtype == (torch.int64 if name in ("words", "tokens") else torch.float32)
        assert batch.present is None
        assert batch.target.tolist() == [found.train.labels[sample] for sample in (3, 0)]
        assert dict(found.encoders) == {
            "sound": "resnet18",
            "picture": "resnet18",
            "film": "resnet18_frames",
            "words": "token_mean",
            "vector": "mlp",
            "tokens": "token_mean",
        }

    def test_sound_too_short_for_a_resnet_gets_another_encoder(self, few, tmp_path):
        rows, header = only(["sound"], ROWS[:6])
        out = prepare(fixture.write_table(few, rows, header), str(tmp_path / "out"), rate=8000, seconds=0.1, workers=1)
        found = folder(root=str(out), valid=0.5, test=0.3)
        assert found.shapes == {"sound": (1, 257, 2)}
        assert found.encoders == {"sound": "mlp"}

    def test_an_array_that_has_the_form_of_a_picture_is_taken_for_one(self, tmp_path):
        for number in range(8):
            np.save(tmp_path / f"{number}.npy", np.full((3, 8, 9), number))
        rows = [[f"s{number}", "ab"[number % 2], f"{number}.npy"] for number in range(8)]
        table = fixture.write_table(tmp_path, rows, ["id", "label", "v"])
        found = folder(root=str(prepare(table, str(tmp_path / "out"), workers=1)), valid=0.5, test=0.25)
        assert found.encoders == {"v": "resnet18"}

    def test_every_modality_tells_the_classes_of_held_out_samples_apart(self, ready):
        found = folder(root=ready, valid=0.4, test=0.4, size=32)
        for modality in ("sound", "picture", "film", "vector"):
            assert surprise(found.train, found.test, modality) < 0.05
        for modality in ("words", "tokens"):
            assert surprise(*(Bags(part, modality) for part in (found.train, found.test)), modality) < 0.05

    def test_words_are_numbered_by_the_training_samples_alone(self, tmp_path):
        texts = ["a a b", "a c", "new a", "new new"]
        rows = []
        for number, (text, split) in enumerate(zip(texts, ("train", "train", "valid", "test"), strict=True)):
            (tmp_path / f"{number}.txt").write_text(text)
            rows.append([f"s{number}", "xy"[number % 2], split, f"{number}.txt"])
        table = fixture.write_table(tmp_path, rows, ["id", "label", "split", "t"])
        found = folder(root=str(prepare(table, str(tmp_path / "out"), length=3, workers=1)))
        first, second = found.train[[0, 1]].inputs["t"].tolist()
        assert first[:2] == [2, 2]
        assert {first[2], second[1]} == {3, 4}
        assert second[2] == 0
        assert found.valid[[0]].inputs["t"].tolist() == [[1, 2, 0]]
        assert found.test[[0]].inputs["t"].tolist() == [[1, 1, 0]]

    def test_training_draws_crops_only_if_asked_and_by_seed_epoch_and_sample(self, ready):
        plain, cropped = (folder(root=ready, size=32, augment=word).train for word in ("none", "crop"))
        for name in ("picture", "film"):
            whole = plain[[4, 7]].inputs[name]
            assert torch.equal(in_epoch(plain, seed=0, epoch=1)[[4, 7]].inputs[name], whole)
            first = in_epoch(cropped, seed=3, epoch=5)[[4, 7]].inputs[name]
            torch.manual_seed(99)
            assert torch.equal(in_epoch(cropped, seed=3, epoch=5)[[7, 4]].inputs[name].flip(0), first)
            assert not torch.equal(in_epoch(cropped, seed=3, epoch=6)[[4, 7]].inputs[name], first)
            assert torch.equal(cropped[[4, 7]].inputs[name], whole)

    def test_refusals(self, files, ready):
        table = fixture.write_table(files, ROWS, name="whole.csv")
        with pytest.raises(ValueError, match=rf"msam data prepare folder --root {table} --out DIR"):
            folder(root=table)
        for options, words in (
            ({"valid": 1.0}, "`valid` must be > 0 and < 1"),
            ({"size": 7}, "`size` must be >= 8"),
            ({"augment": "flip"}, "Unknown augment 'flip'"),
            ({"test": 0.001}, "must leave some on both sides"),
        ):
            with pytest.raises(ValueError, match=words):
                folder(root=ready, **options)


class TestWhatSamplesLack:
    def test_it_is_said_in_present_and_zeros_in_the_input(self, gaps):
        found = folder(root=gaps, size=32)
        for part in (found.train, found.valid, found.test):
            batch = part[range(len(part))]
            for row, name in enumerate(part.ids):
                number = int(name[1:])
                lacks = {"sound"} if number % 3 == 0 else set(fixture.KINDS) - {"words"} if number == 1 else set()
                assert batch.present[row].tolist() == [modality not in lacks for modality in found.modalities]
                for modality in found.modalities:
                    assert bool((batch.inputs[modality][row] == 0).all()) == (modality in lacks)

    def test_the_fingerprint_tells_absence_from_zeros(self, tmp_path):
        np.save(tmp_path / "zeros.npy", np.zeros(3))
        np.save(tmp_path / "ones.npy", np.ones(3))
        made = []
        for number, cell in enumerate(("", "zeros.npy")):
            rows = [[f"s{n}", "ab"[n % 2], "ones.npy", cell if n == 0 else "ones.npy"] for n in range(8)]
            table = fixture.write_table(tmp_path, rows, ["id", "label", "v", "w"], f"{number}.csv")
            made.append(folder(root=str(prepare(table, str(tmp_path / str(number)), workers=1)), valid=0.4, test=0.4))
        assert made[0].fingerprint != made[1].fingerprint
        assert made[1].train[[0]].present is None

    @pytest.mark.parametrize("method", ["joint", "uniform"])
    def test_a_run_trains_on_them(self, gaps, tmp_path, method):
        settings = config(
            data={"name": "folder", "root": gaps, "size": 32, "frames": 1},
            method=method,
            sharpness={"name": "msam", "rho": 0.05},
            encoders={"sound": "mlp", "picture": "mlp", "film": "mlp"},
            optimizer={"name": "sgd", "lr": 1e-3},
            epochs=6,
            batch_size=8,
        )
        last = train(settings, tmp_path / "run").epochs[-1]
        assert last["train"]["accuracy"] > 0.9
        assert set(last["test"]["modalities"]) == set(fixture.KINDS)

    def test_it_is_told_when_prepared_and_checked(self, files, tmp_path, capsys):
        rows, header = only(["vector", "words"], ROWS[:6])
        rows[0][2] = ""
        table = fixture.write_table(files, rows, header, "one.csv")
        prepare(table, str(tmp_path / "out"), workers=1)
        assert "1 of 6 samples lack vector" in capsys.readouterr().err
        assert "1 of 6 samples lack vector" in [finding.text for finding in check(table).findings]


class TestVocabularies:
    @given(st.lists(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=6), min_size=1, max_size=8))
    def test_known_words_get_numbers_by_how_many_samples_have_them(self, texts):
        rows = np.zeros((len(texts), 6), np.int64)
        for row, text in zip(rows, texts, strict=True):
            row[: len(text)] = [_folder_files.mark(word) for word in text]
        found = Vocabulary.of(rows)
        numbers = {word: int(found.numbers(np.array([[_folder_files.mark(word)]]))[0, 0]) for word in "abcdefghi"}
        counts = {word: sum(word in text for text in texts) for word in "abcdefgh"}
        known = [word for word in counts if counts[word]]
        assert sorted(numbers[word] for word in known) == list(range(2, 2 + len(known)))
        assert all(counts[a] >= counts[b] for a in known for b in known if numbers[a] < numbers[b])
        assert all(numbers[word] == 1 for word in numbers if word not in known)
        assert (found.numbers(rows) == 0).tolist() == (rows == 0).tolist()

    def test_too_many_words_leave_the_rarest_unknown(self, monkeypatch):
        monkeypatch.setattr(_folder_split, "VOCABULARY", 4)
        found = Vocabulary.of(np.array([[5, 6, 7], [5, 6, 8], [5, 0, 0]]))
        assert found.numbers(np.array([[5, 6, 7, 8, 0]])).tolist() == [[2, 3, 1, 1, 0]]


class TestChecking:
    def test_a_table(self, files):
        found = check(fixture.write_table(files, ROWS, name="whole.csv"))
        assert found.sound
        assert "24 of 24 samples have files" in found.findings[-1].text
        assert found.splits == {"all": {"cat": 12, "dog": 12}}

    def test_a_table_with_gaps(self, few):
        (few / "files" / "s00.wav").unlink()
        (few / "files" / "s01.txt").write_text("")
        (few / "files" / "s02.npy").write_bytes(b"")
        found = check(fixture.write_table(few, ROWS[:6]))
        said = {
            (finding.kind, name) for finding in found.findings for name in ("s00", "s01", "s02") if name in finding.text
        }
        assert said == {("missing", "s00"), ("broken", "s01"), ("broken", "s02")}

    def test_the_folder_of_a_table(self, few):
        fixture.write_table(few, ROWS[:6])
        with pytest.raises(ValueError, match=r"must be the table itself, received its folder. Give --root .*data.csv"):
            check(str(few))

    def test_from_table_to_picture_and_run_by_command(self, files, tmp_path, capsys, monkeypatch):
        monkeypatch.chdir(tmp_path)
        rows, header = only(["picture", "words"])
        table = fixture.write_table(files, rows, header, "two.csv")
        assert msam("data", "prepare", "folder", "--root", table, "--out", "ready", "--workers", 1) == 0
        assert msam("data", "check", "folder", "--root", "ready", "--size", 32, "--out", "a.png") == 0
        said = capsys.readouterr().out
        assert "24 samples prepared with" in said
        assert folder(root="ready").fingerprint in said
        assert Path("a.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"

    def test_damage(self, ready, tmp_path):
        spoilt = shutil.copytree(ready, tmp_path / "spoilt")
        content = bytearray((spoilt / "picture.frames").read_bytes())
        content[0] ^= 255
        (spoilt / "picture.frames").write_bytes(content)
        found = check(str(spoilt), size=32)
        assert not found.sound
        assert "picture of s00 has changed" in found.findings[0].text
