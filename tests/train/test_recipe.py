import pytest
from tiny_cheng import RECIPE

from segtool.errors import UsageError
from segtool_train.overrides import parse_setting
from segtool_train.recipe import find_recipe, parse_recipe, read_recipe, shipped_recipes


def test_every_shipped_recipe_is_valid_and_survives_being_written_out():
    assert set(shipped_recipes()) >= {"cheng-lite0", "cheng-unet", "brats3d-light"}
    for name, path in shipped_recipes().items():
        recipe = read_recipe(path)
        assert recipe.name == name
        assert parse_recipe(recipe.to_toml(), "other", "resolved") == recipe


def test_overrides_replace_values_at_any_depth():
    chosen = {"training.epochs": 7, "network.width": 8, "spec.input.size": [32, 32], "data.split.validation": 0.5}
    recipe = parse_recipe(RECIPE, "discs", "here", chosen)
    assert (recipe.training.epochs, recipe.training.batch) == (7, 4)
    assert recipe.network.options == {"width": 8, "depth": 3}
    assert (recipe.spec.input.size, recipe.data.split.test_fold) == ((32, 32), "5")


def test_an_override_of_none_gives_a_key_its_default_back():
    assert parse_recipe(RECIPE, "discs", "here", {"training.ema_decay": None}).training.ema_decay is None


@pytest.mark.parametrize(
    ("loss", "name", "options"),
    [
        ('loss = "bce"', "bce", {}),
        ('loss = { name = "dice", epsilon = 1e-6 }', "dice", {"epsilon": 1e-6}),
        ('loss = { name = "tversky", alpha = 0.2, beta = 0.8 }', "tversky", {"alpha": 0.2, "beta": 0.8}),
    ],
)
def test_a_loss_is_a_name_or_a_table_with_its_options(loss: str, name: str, options: dict[str, float]):
    recipe = parse_recipe(RECIPE.replace("lr = 1e-2", f"lr = 1e-2\n{loss}"), "discs", "here")
    assert (recipe.training.loss.name, recipe.training.loss.options) == (name, options)
    assert parse_recipe(recipe.to_toml(), "discs", "resolved") == recipe


def test_an_option_of_a_loss_named_alone_can_be_overridden():
    recipe = parse_recipe(RECIPE, "discs", "here", {"training.loss": "dice", "training.loss.epsilon": 1e-6})
    assert recipe.training.loss.options == {"epsilon": 1e-6}
    with pytest.raises(UsageError, match=r"discs.toml: loss 'dice': option 'smooth'.*It takes: epsilon"):
        parse_recipe(RECIPE, "discs", "discs.toml", {"training.loss": "dice", "training.loss.smooth": 1})


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("network.width=16", "network.width", 16),
        ("spec.input.size=[128, 128]", "spec.input.size", [128, 128]),
        ("training.loss=bce", "training.loss", "bce"),
        ("training.lr = 1e-3", "training.lr", 1e-3),
        ('data.layout="folder"', "data.layout", "folder"),
        ("network.pretrained=true", "network.pretrained", True),
        ("training.schedule={name='poly', power=0.9}", "training.schedule", {"name": "poly", "power": 0.9}),
        ("spec.description=a = b", "spec.description", "a = b"),
        ("training.ema_decay=", "training.ema_decay", None),
    ],
)
def test_a_setting_is_toml_or_a_bare_string(text: str, key: str, value: object):
    assert parse_setting(text) == (key, value)


@pytest.mark.parametrize("text", ["epochs", "=3", "training..lr=3", "spec.input.size=[128"])
def test_a_setting_that_is_none_says_how_to_write_one(text: str):
    with pytest.raises(UsageError, match="Write it like --set"):
        parse_setting(text)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("training.epoch", r"no key 'training.epoch'. There are: loss, .*epochs"),
        ("trainin.epochs", r"no key 'trainin'. There are: name, data"),
        ("data.split.folds_of_five", r"no key 'data.split.folds_of_five'. There are: .*test_fold"),
        ("training.early_stopping.delta", r"no key 'training.early_stopping.delta'. There are: patience, min_delta"),
        ("training.epochs.first", r"no key 'training.epochs.first'.*Replace training.epochs as a whole"),
        ("network.breadth", r"discs.toml: network 'unet'.*breadth.*It takes: width"),
    ],
)
def test_a_wrong_key_is_one_line_that_names_it(key: str, message: str):
    with pytest.raises(UsageError, match=message) as error:
        parse_recipe(RECIPE, "discs", "discs.toml", {"training.early_stopping.patience": 3, key: 3})
    assert str(error.value).startswith("discs.toml: ")


@pytest.mark.parametrize(
    ("wrong", "place"),
    [
        (RECIPE.replace("epochs = 2", "epochs = 0"), "training.epochs"),
        (RECIPE.replace("epochs = 2", "epoch = 2"), "no key 'training.epoch'"),
        (RECIPE.replace('name = "unet"', 'name = "vnet"'), "network.name 'vnet' is not known"),
        (RECIPE.replace('layout = "cheng"', 'layout = "xray"'), "there are cheng"),
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
    with pytest.raises(UsageError, match=r"my.toml: .*breadth.* It takes: width"):
        parse_recipe(RECIPE.replace("width = 4", "breadth = 4"), "discs", "my.toml")


PROVENANCE = RECIPE.replace(
    "[training]", '[spec.provenance]\ndata = "Discs"\ndata_licence = "CC0"\nlicence = "MIT"\ncitation = "C"\n[training]'
)


def test_another_set_does_not_inherit_the_terms_of_the_recipes_own():
    settings = dict(map(parse_setting, ["spec.provenance.data=Other discs", "spec.provenance.licence=CC BY 4.0"]))
    provenance = parse_recipe(PROVENANCE, "discs", "here", settings).spec.provenance
    assert provenance == {"data": "Other discs", "licence": "CC BY 4.0"}
    assert parse_recipe(PROVENANCE, "discs", "here", {"training.lr": 1e-3}).spec.provenance["data_licence"] == "CC0"
    assert parse_recipe(PROVENANCE, "discs", "here", {"spec.provenance.data": None}).spec.provenance == {}


def test_an_unknown_recipe_names_the_shipped_ones():
    with pytest.raises(UsageError, match=r"Name one of .*cheng-lite0"):
        find_recipe("cheng-lite9")
