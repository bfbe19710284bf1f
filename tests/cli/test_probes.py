"""Probes on the command line: chosen by name, listed, explained."""

from msam import record


def test_a_run_is_probed_by_names(msam_):
    line = "train --data tests.train.world --epochs 1 --threads 1 --probes gradients,landscape --out here"
    code, _, error = msam_(line)
    assert code == 0, error
    found = record.read("here/record.jsonl")
    assert [probe["probe"] for probe in found.probes] == ["gradients", "gradients", "landscape"]


def test_what_ships_is_listed(msam_):
    _, out, _ = msam_("list probes")
    for word in ("gradients", "curvature", "landscape", "after every one", "last weights"):
        assert word in " ".join(out.split())


def test_a_wrong_name_is_refused_with_the_right_one(msam_):
    code, _, error = msam_("train --data tests.train.world --probes lanscape --out here")
    assert code != 0
    assert "Did you mean 'landscape'?" in error
