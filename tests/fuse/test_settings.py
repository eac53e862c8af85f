from collections.abc import Callable

from bmla.fuse.recipes import run_config
from bmla.fuse.run import Run
from bmla.fuse.settings import labels, settings_of

MadeUp = Callable[..., Run]


def names(*runs: Run) -> list[str]:
    return [str(label) for label in labels(settings_of(runs))]


def test_a_plain_setting_has_a_plain_name(made_up: MadeUp) -> None:
    configs = [
        run_config("transformer"),
        run_config("transformer", ratio="1:2", lr=3e-3),
        run_config("transformer-ao", lr=3e-3),
        run_config("balancemla", clw=False, seed=4),
    ]
    found = names(*(made_up(c, [True, False]) for c in configs))
    assert found == ["transformer 1:1", "transformer 1:2", "transformer-ao", "balancemla without clw 1:1"]


def test_settings_that_would_share_a_name_tell_the_fields_that_differ(made_up: MadeUp) -> None:
    noises = ("audio.logspec@white=0", "audio.logspec@mask=0.4")
    configs = [
        run_config("transformer", audio="audio.logspec", visual="mouth.dct", augment=augment, lr=lr)
        for augment in ((), noises)
        for lr in (1e-4, 1e-3)
    ]
    assert names(*(made_up(c, [True, False]) for c in configs)) == [
        "transformer [lr 0.0001, no augment] 1:1",
        "transformer [lr 0.001, no augment] 1:1",
        "transformer [lr 0.0001, augment mask=0.4 white=0] 1:1",
        "transformer [lr 0.001, augment mask=0.4 white=0] 1:1",
    ]
    shares = [
        run_config("transformer", audio="audio.logspec", visual="mouth.dct", augment=augment, noise_share=share)
        for augment, share in (((), None), (noises, 0.1), (noises, None))
    ]
    assert names(*(made_up(c, [True, False]) for c in shares)) == [
        "transformer [no augment] 1:1",
        "transformer [augment mask=0.4 white=0, noise share 0.1] 1:1",
        "transformer [augment mask=0.4 white=0, noise share 0.333333] 1:1",
    ]


def test_many_noises_are_counted_unless_that_hides_a_difference(made_up: MadeUp) -> None:
    def made(*strengths: int) -> Run:
        variants = tuple(f"audio.logspec@white={s}" for s in strengths)
        return made_up(run_config("transformer-ao", audio="audio.logspec", augment=variants), [True, False])

    assert names(made(), made(0, 5, 10, 20)) == ["transformer-ao [no augment]", "transformer-ao [augment 4 variants]"]
    first, second = names(made(-5, 0, 5, 10), made(0, 5, 10, 20))
    assert first != second
    assert "audio.logspec@white=-5" in first


def test_the_same_training_on_other_features_is_a_setting_of_its_own(made_up: MadeUp) -> None:
    config = run_config("transformer")
    found = names(made_up(config, [True, False], digest="a" * 64), made_up(config, [True, False], digest="b" * 64))
    assert found == ["transformer [features aaaaaaaa] 1:1", "transformer [features bbbbbbbb] 1:1"]


def test_ratios_of_one_kind_are_a_family(made_up: MadeUp) -> None:
    configs = [run_config("transformer", ratio=r, lr=lr) for r in ("1:1", "1:2") for lr in (1e-4, 1e-3)]
    families = [label.family for label in labels(settings_of([made_up(c, [True, False]) for c in configs]))]
    assert families == ["transformer [lr 0.0001]", "transformer [lr 0.001]"] * 2


def test_branches_of_several_ratios_do_not_share_a_name(made_up: MadeUp) -> None:
    """What BalanceMLA starts from has the width of its ratio, but no ratio to be called by."""
    configs = [run_config("balancemla-ao", ratio=ratio) for ratio in ("1:2", "2:1")]
    assert names(*(made_up(c, [True, False]) for c in configs)) == [
        "balancemla-ao [ratio 1:2]",
        "balancemla-ao [ratio 2:1]",
    ]
