"""Grids for the tests: they take seconds."""

from msam.bench import Grid, grid

WORLD = {"name": "dial", "train_size": 96, "valid_size": 30, "test_size": 30, "bayes_samples": 100}


def tiny(seeds=2) -> Grid:
    return grid(
        data=WORLD, method=["joint", "ogm_ge"], sharpness=["none", "msam"], seeds=seeds, epochs=2, batch_size=16
    )


def slower(seeds=4) -> Grid:
    """Some twenty seconds of training, with controls two dozen cells: something to be killed in."""
    world = {**WORLD, "train_size": 1024, "valid_size": 100, "test_size": 100}
    return grid(data=world, sharpness=["none", "msam"], seeds=seeds, epochs=5, batch_size=16)


def no_grid(seeds=2) -> list[str]:
    return ["joint"] * seeds


def late_seeds() -> Grid:
    return tiny(seeds=[1001])
