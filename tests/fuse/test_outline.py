from bmla.fuse.outline import outline
from bmla.fuse.sweep import grid, needed


def test_a_sweep_is_counted_by_axis_and_by_what_is_done() -> None:
    """2 models x 3 ratios x 2 seeds; each BalanceMLA starts from two runs of its own, for every ratio and seed."""
    configs = grid(["transformer", "balancemla"], ["1:2", "1:1", "2:1"], [0, 1], audio="a", visual="v")
    every = list(dict.fromkeys(c for config in configs for c in needed(config)))
    line = outline(configs, every, [c for c in every if c.model == "transformer"])
    assert line == (
        "sweep: 12 runs of 2 models, 3 ratios, 2 seeds, and 12 that they start or learn from; 6 of 24 done already"
    )


def test_a_single_run_spans_nothing() -> None:
    configs = grid(["transformer-ao"], ["1:2", "2:1"], [0], audio="a")
    assert outline(configs, configs, []) == "sweep: 1 run; none of 1 done already"
