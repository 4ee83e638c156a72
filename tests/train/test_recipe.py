import pytest
from tiny_cheng import RECIPE

from segtool.errors import UsageError
from segtool_train.recipe import find_recipe, parse_recipe, read_recipe, shipped_recipes


def test_every_shipped_recipe_is_valid_and_survives_being_written_out():
    assert set(shipped_recipes()) >= {"cheng-lite0", "cheng-unet", "brats3d-light"}
    for name, path in shipped_recipes().items():
        recipe = read_recipe(path)
        assert recipe.name == name
        assert parse_recipe(recipe.to_toml(), "other", "resolved") == recipe


def test_an_override_replaces_a_value_of_training_and_none_does_not():
    recipe = parse_recipe(RECIPE, "discs", "here", {"epochs": 7, "batch": None})
    assert (recipe.training.epochs, recipe.training.batch) == (7, 4)


@pytest.mark.parametrize(
    ("wrong", "place"),
    [
        (RECIPE.replace("epochs = 2", "epochs = 0"), "training.epochs"),
        (RECIPE.replace("epochs = 2", "epoch = 2"), "training.epoch"),
        (RECIPE.replace('name = "unet"', 'name = "vnet"'), "network.name 'vnet' is not known"),
        (RECIPE.replace('layout = "cheng"', 'layout = "xray"'), "there are cheng, brats, folder"),
        (RECIPE.replace("lr = 1e-2", 'loss = "ce_dice"'), "does not fit activation 'sigmoid'"),
        (RECIPE.replace("depth = 3", "depth = 5"), "spec.divisor 4 is not a multiple of the network's 16"),
        (RECIPE.replace("divisor = 4", "divisor = 5"), "(64, 64) does not divide by 5"),
        (RECIPE.partition("[training]")[0].replace("[data]", "training = 3\n[data]"), "'training'"),
        (RECIPE + "x = [", "not TOML"),
    ],
)
def test_a_wrong_recipe_is_one_line_that_names_the_place(wrong: str, place: str):
    with pytest.raises(UsageError) as error:
        parse_recipe(wrong, "discs", "my.toml")
    assert place in str(error.value)
    assert "my.toml" in str(error.value)
    assert "\n" not in str(error.value)


def test_an_option_that_the_network_lacks_names_those_it_has():
    with pytest.raises(UsageError, match=r"It takes: width, depth, norm, dropout"):
        parse_recipe(RECIPE.replace("width = 4", "breadth = 4"), "discs", "my.toml")


def test_an_unknown_recipe_names_the_shipped_ones():
    with pytest.raises(UsageError, match=r"Name one of .*cheng-lite0"):
        find_recipe("cheng-lite9")
