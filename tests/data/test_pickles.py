"""A pickle gives up its numbers and nothing of it is run."""

# ruff: noqa: PT017  (a damaged bit may be harmless)

import collections
import os
import pickle
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from msam.data import _pickles

ARRAYS = {
    "plain": np.arange(6.0).reshape(2, 3),
    "fortran": np.asfortranarray(np.arange(6).reshape(2, 3)),
    "transposed": np.arange(24).reshape(2, 3, 4).transpose(1, 2, 0),
    "big_endian": np.arange(3, dtype=">f4"),
    "empty": np.zeros((0, 3)),
    "no_axes": np.array(3),
    "truth": np.array([True, False]),
    "bytes": np.arange(256, dtype=np.uint8),
    "text": np.array(["a", "bcd"]),
    "octets": np.array([b"xy", b"z"]),
}


@pytest.fixture
def loaded(tmp_path):
    def load(content):
        path = tmp_path / "a.pkl"
        path.write_bytes(content)
        return _pickles.load(path)

    return load


@pytest.fixture
def trap(tmp_path, monkeypatch):
    """A file that is there if anything was run, and functions that would make it."""
    mark = tmp_path / "it_was_run"
    monkeypatch.setenv("MARK", str(mark))
    yield mark
    assert not mark.exists()


class Call:
    """Pickles as the call of a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", range(6))
class TestWhatIsLetIn:
    def test_arrays_scalars_and_types(self, loaded, protocol):
        held = {"train": ARRAYS, "scalar": np.float32(2.5), "type": np.dtype("<f8")}
        found = loaded(pickle.dumps(held, protocol))
        assert found["scalar"] == np.float32(2.5)
        assert found["type"] == np.dtype("<f8")
        for name, array in ARRAYS.items():
            assert np.array_equal(found["train"][name], array), name
            assert found["train"][name].dtype == array.dtype

    def test_containers_text_and_numbers(self, loaded, protocol):
        held = {"a": [1, -(2**70), 2.5, None, True, "ä", b"\xff", b""], ("b", 1): (), "c": ([{}], (1, 2, 3, 4))}
        assert loaded(pickle.dumps(held, protocol)) == held

    def test_arrays_deep_inside(self, loaded, protocol):
        found = loaded(pickle.dumps([(1, {"x": [np.arange(3)]})], protocol))
        assert np.array_equal(found[0][1]["x"][0], np.arange(3))

    def test_what_is_held_twice_is_one_thing_and_may_hold_itself(self, loaded, protocol):
        held = [np.arange(3)]
        held += [held, held[0], (held,)]
        found = loaded(pickle.dumps(held, protocol))
        assert found[1] is found
        assert found[2] is found[0]
        assert found[3][0] is found

    def test_objects_that_are_all_text_become_an_array_of_text(self, loaded, protocol):
        found = loaded(pickle.dumps(np.array([["a", "bcd"]], object), protocol))
        assert found.dtype == np.dtype("<U3")
        assert found.tolist() == [["a", "bcd"]]

    def test_both_paths_of_numpy(self, loaded, protocol):
        content = pickle.dumps(np.arange(4.0), protocol)
        for there, other in ((b"numpy._core", b"numpy.core"), (b"numpy.core", b"numpy._core")):
            if protocol < 4 and there in content:
                assert loaded(content.replace(there, other)).tolist() == [0, 1, 2, 3]


PYTHON_2 = (  # pickle.dumps({'x': numpy.array([1.5, -2.0])}, 2) as Python 2 wrote it: texts are byte strings
    b"\x80\x02}q\x01U\x01xq\x02cnumpy.core.multiarray\n_reconstruct\nq\x03cnumpy\nndarray\nq\x04K\x00\x85U\x01b\x87Rq\x05"
    b"(K\x01K\x02\x85cnumpy\ndtype\nq\x06U\x02f8K\x00K\x01\x87Rq\x07(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00t"
    b"b\x89U\x10" + struct.pack("<2d", 1.5, -2.0) + b"tbs."
)


def test_a_pickle_of_python_2(loaded):
    assert loaded(PYTHON_2)["x"].tolist() == [1.5, -2.0]


@pytest.mark.parametrize("module", ["numpy.core", "numpy._core"])
def test_names_of_numpy_1_and_2_in_protocol_4(loaded, module):
    def text(word):
        return b"\x8c" + bytes([len(word)]) + word.encode()

    content = b"\x80\x04" + text(f"{module}.multiarray") + text("scalar") + b"\x93"
    content += text("numpy") + text("dtype") + b"\x93" + text("f8") + b"\x89\x88\x87R"
    content += b"(K\x03" + text("<") + b"NNN" + b"J\xff\xff\xff\xff" * 2 + b"K\x00tb"
    assert loaded(content + b"C\x08" + struct.pack("<d", 7.0) + b"\x86R.") == 7.0


@given(
    array=arrays.arrays(
        st.sampled_from([np.float32, np.float64, np.int64, np.uint8, ">i2"]),
        arrays.array_shapes(min_dims=0, min_side=0),
    ),
    protocol=st.integers(0, 5),
)
def test_any_array_comes_back(tmp_path_factory, array, protocol):
    path = tmp_path_factory.getbasetemp() / "any.pkl"
    path.write_bytes(pickle.dumps(array, protocol))
    assert np.array_equal(_pickles.load(path), array, equal_nan=array.dtype.kind == "f")


ATTACKS = {
    "os.system": (lambda: Call(os.system, "touch $MARK"), "the name (posix|nt).system"),
    "eval": (lambda: Call(eval, "open(__import__('os').environ['MARK'], 'w')"), "the name (builtins|__builtin__).eval"),
    "exec": (lambda: Call(exec, "open(__import__('os').environ['MARK'], 'w')"), "the name (builtins|__builtin__).exec"),
    "getattr": (lambda: Call(getattr, os.system, "__name__"), "the name"),
    "open": (lambda: Call(open, os.environ["MARK"], "w"), "the name (io|_io|builtins).open"),
    "in an array of objects": (lambda: np.array([Call(os.system, "touch $MARK")], object), "the name posix.system"),
    "in a key": (lambda: {Call(os.system, "touch $MARK"): 1}, "the name posix.system"),
    "numpy's own loader": (lambda: Call(np.load, "x.npy", None, True), "the name numpy.(lib.npyio.)?load"),
    "numpy's own caller": (lambda: Call(np.fromfile, "x"), "the name"),
    "another numpy function": (lambda: np.random.default_rng(0), "the name numpy.random"),
    "a function": (lambda: print, "the name (builtins|__builtin__).print"),
    "ordered dict": (lambda: collections.OrderedDict(a=1), "the name collections.OrderedDict"),
}


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.parametrize("attack", ATTACKS)
def test_names_of_programs_are_refused_and_nothing_is_run(loaded, trap, attack, protocol):
    make, found = ATTACKS[attack]
    with pytest.raises(ValueError, match=rf"must hold plain data and numpy arrays only, found {found}.*was run"):
        loaded(pickle.dumps({"train": make()}, protocol))


def test_the_trap_is_one(tmp_path, monkeypatch):
    monkeypatch.setenv("MARK", str(tmp_path / "it_was_run"))
    pickle.loads(pickle.dumps({"train": ATTACKS["os.system"][0]()}))
    assert (tmp_path / "it_was_run").exists()


def op(text):
    return text.encode("latin-1")


BY_HAND = {
    "INST": (op("(S'touch $MARK'\nios\nsystem\n."), "the opcode INST at byte 16"),
    "OBJ": (op("(cos\nsystem\nS'touch $MARK'\no."), "the name os.system"),
    "OBJ of what is let in": (op("(cnumpy\ndtype\nS'f8'\no."), "the opcode OBJ"),
    "NEWOBJ": (op("\x80\x02cnumpy\ndtype\n)\x81."), "the opcode NEWOBJ"),
    "persistent id": (op("Pwhere\n."), "the opcode PERSID at byte 0"),
    "binary persistent id": (op("\x80\x02K\x01Q."), "the opcode BINPERSID"),
    "registered extension": (op("\x80\x02\x82\x01."), "the opcode EXT1"),
    "set": (pickle.dumps({1}), "the opcode EMPTY_SET"),
    "frozen set": (pickle.dumps(frozenset([1])), "the opcode FROZENSET"),
    "buffer from outside": (op("\x80\x05\x97."), "the opcode NEXT_BUFFER"),
    "dotted name": (op("\x80\x04\x8c\x05numpy\x8c\x0edtype.__init__\x93."), "the name numpy.dtype.__init__"),
    "name put together": (op("\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x0btouch $MARK\x85R."), "the name os.system"),
    "change of numpy": (op("cnumpy\ndtype\n}S'x'\nS'y'\nsb."), "a change of something of numpy"),
    "change of attributes": (op("\x80\x02cnumpy\ndtype\nN}U\x05_callK\x01s\x86b."), "a change of something of numpy"),
    "change of a list": (op("]}S'x'\nS'y'\nsb."), "AttributeError"),
    "call of the array type": (op("cnumpy\nndarray\n(I1\ntR."), "a call of numpy.ndarray"),
    "the type itself": (op("cnumpy\nndarray\n."), "a function or class of numpy"),
    "array without content": (op("cnumpy.core.multiarray\n_reconstruct\n(NNNtR."), "a numpy array without content"),
    "memory as a bomb": (op("\x80\x02Nr\xff\xff\xff\x7f."), "the place 2147483647 in memory"),
    "bytes by number": (op("c__builtin__\nbytes\n(I1000000000000\ntR."), "a call of bytes"),
    "other encodings": (op("c_codecs\nencode\n(S'x'\nS'idna'\ntR."), "a text encoded as 'idna'"),
}


@pytest.mark.parametrize("case", BY_HAND)
def test_every_other_way_to_run_something_is_refused(loaded, trap, case):
    content, found = BY_HAND[case]
    with pytest.raises(ValueError, match=found):
        loaded(content)
    assert loaded(pickle.dumps(np.arange(2.0))).tolist() == [0, 1], "and nothing has changed for the next one"


@pytest.mark.parametrize(
    ("held", "found"),
    [
        (np.array([{"a": 1}], object), r"a numpy array of objects \(of dict\)"),
        (np.array([pickle.dumps(print)], object), r"a numpy array of objects \(of bytes\)"),
        (np.array(["x" * 1001, "y"], object), "a text of more than 1000 characters"),
        (np.zeros(2, [("a", "f4")]), "a structured numpy type"),
        (np.array(["2020-01-01"], "M8[D]"), "a numpy type 'M8'"),
        (np.ma.masked_array([1, 2]), "the name numpy.ma"),
    ],
)
def test_arrays_of_something_else_are_refused(loaded, held, found):
    with pytest.raises(ValueError, match=found):
        loaded(pickle.dumps(held))


def doubled(times: int = 60) -> bytes:
    """Return opcodes that leave a tuple whose text would be 2^times long on the stack."""
    return b")" + b"2\x86" * times


@pytest.mark.parametrize(
    "content",
    [
        b"}" + doubled() + b"K\x01s.",
        b"}(" + doubled() + b"K\x01u.",
        b"(" + doubled() + b"K\x01d.",
        b"cnumpy\ndtype\n(" + doubled() + b"I00\nI01\ntR(I3\n" + doubled() + b"NNNI-1\nI-1\nI0\ntb.",
        b"cnumpy\ndtype\n(U\x02f8I00\nI01\ntR" + doubled() + b"b.",
        b"c_codecs\nencode\n(U\x01a" + doubled() + b"tR.",
        b"cnumpy.core.multiarray\n_reconstruct\n(NNNtR" + doubled() + b"b.",
        b"cnumpy.core.multiarray\nscalar\n(" + doubled() + b"U\x01atR.",
    ],
    ids=["key", "keys", "dict", "code", "state of a type", "encoding", "state of an array", "type"],
)
def test_what_is_small_and_endless_is_refused_at_once(loaded, content):
    with pytest.raises(ValueError, match=r"Nothing of it was run|truncated, damaged"):
        loaded(content)


def test_a_text_that_many_places_share_is_not_given_room_in_each(loaded):
    shared = "x" * 1000
    with pytest.raises(ValueError, match="more than 50000000 characters"):
        loaded(pickle.dumps(np.array([shared] * 60_000, object)))


@pytest.mark.parametrize("key", [((1, 2), 3), frozenset(), np.dtype("f4")], ids=repr)
def test_keys_are_text_and_numbers_and_pairs_of_such(loaded, key):
    with pytest.raises(ValueError, match=r"as a key|opcode"):
        loaded(pickle.dumps({key: 1}))
    assert loaded(pickle.dumps({(1, "a"): 1, 2: 3})) == {(1, "a"): 1, 2: 3}


def test_an_array_has_as_many_bytes_as_its_shape_needs(loaded):
    content = pickle.dumps(np.arange(3.0), 2)
    assert content.count(b"K\x03\x85") == 1
    with pytest.raises(ValueError, match=r"shape \(200,\) of float64 with 24 bytes instead of 1600"):
        loaded(content.replace(b"K\x03\x85", b"K\xc8\x85"))


class TestDamage:
    def test_a_truncated_pickle_at_any_length(self, loaded):
        content = pickle.dumps({"train": {"text": np.arange(40.0), "id": np.array(["a"])}})
        for size in range(len(content)):
            with pytest.raises(ValueError, match=r"truncated, damaged or no pickle|must hold plain data"):
                loaded(content[:size])

    def test_any_flipped_bit_gives_data_or_this_error(self, loaded):
        content, rng = pickle.dumps({"a": np.arange(5.0), "b": ["x", 3]}, 2), np.random.default_rng(0)
        for position in range(len(content)):
            damaged = bytearray(content)
            damaged[position] ^= 1 << int(rng.integers(8))
            try:
                loaded(bytes(damaged))
            except ValueError as error:
                assert "a.pkl" in str(error)

    @pytest.mark.parametrize("content", [b"", b"no pickle", zlib.compress(b"x"), b"\x93NUMPY\x01\x00"])
    def test_another_kind_of_file(self, loaded, content):
        with pytest.raises(ValueError, match=r"a\.pkl is truncated, damaged or no pickle"):
            loaded(content)

    def test_nested_too_deep(self, loaded):
        with pytest.raises(ValueError, match=r"a\.pkl is too large or nested too deep"):
            loaded(b"\x80\x02" + b"]" * 20000 + b"a" * 19999 + b".")

    def test_a_missing_file_and_a_folder(self, tmp_path):
        with pytest.raises(ValueError, match=r"The pickle must exist, found none at .*none\.pkl"):
            _pickles.load(tmp_path / "none.pkl")
        with pytest.raises(ValueError, match=r"Cannot read .*: Is a directory"):
            _pickles.load(tmp_path)
