import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from ruamel.yaml import YAML

from mis.errors import MisError
from mis.params.load import load_params, parse_override
from mis.params.space import Distribution
from mis.tune.samplers import number_of_trials

ROOT = Path(__file__).parents[2]
FILE = ROOT / "pipelines" / "plain.yaml"
TEXT = FILE.read_text(encoding="utf-8")


# Where a message quotes them, the file may have other values.
KNOWN = [
    "data.multiple=8",
    "data.split={train: 0.7, val: 0.15, test: 0.15, seed: 0}",
    "model.depth=3",
    "model.base_filters=8",
    "model.norm=group",
    "model.groups=4",
    "train.batch_size=2",
    "train.learning_rate=5e-3",
    "distribute={kind: auto, workers: 1, devices_per_worker: 1, batch_rule: fixed_global_batch, lr_scaling: none, "
    "max_restarts: 3, min_workers: 1, heartbeat_s: 20, stall_s: 900}",
    "train.jit_compile=false",
    "train.precision=float32",
    "tune.devices_per_trial=1",
    "tune.space={train.learning_rate: {type: float, low: 1e-3, high: 2e-2, log: true}}",
    "scaling.devices=[1, 2]",
    "scaling.trials=[{train.learning_rate: 1e-3}, {train.learning_rate: 2e-3}]",
]


@pytest.fixture
def load(tmp_path):
    """Load a params.yaml with the line of one key replaced."""

    def load(section, key, line):
        before, header, rest = TEXT.partition(f"\n{section}:")
        text, count = re.subn(rf"(?m)^  {key}: .*\n", f"{line}\n" if line else "", rest, count=1)
        assert (header, count) == (f"\n{section}:", 1)
        (tmp_path / "params.yaml").write_text(before + header + text, encoding="utf-8")
        return load_params(tmp_path / "params.yaml")

    return load


def refused(call, *arguments):
    with pytest.raises(MisError) as error:
        call(*arguments)
    assert "\n" not in str(error.value)
    return str(error.value)


# ---- Reading ----


def test_what_is_read_is_what_the_file_says(params):
    tree = YAML(typ="safe").load(TEXT)
    assert params.phantom.shape == tuple(tree["phantom"]["shape"])
    assert params.train.learning_rate == tree["train"]["learning_rate"]
    assert params.data.split.val == tree["data"]["split"]["val"]
    assert list(params.tune.space) == list(tree["tune"]["space"])
    assert params.scaling.trials == tuple(tree["scaling"]["trials"])


@pytest.mark.parametrize(
    ("text", "value"), [("1e-3", 0.001), ("1.0e-3", 0.001), ("5E-2", 0.05), (".5", 0.5), ("1", 1.0), ("+2.", 2.0)]
)
def test_numbers_are_those_of_yaml_1_2(params, load, text, value):
    assert load("train", "learning_rate", f"  learning_rate: {text}").train.learning_rate == value
    assert params.override(dict([parse_override(f"train.learning_rate={text}")])).train.learning_rate == value


def test_words_of_yaml_1_1_are_words(load):
    assert load("data", "root", "  root: no").data.root == "no"
    assert "train.amsgrad" in refused(load, "train", "amsgrad", "  amsgrad: no")


@pytest.mark.parametrize(
    ("section", "key", "line", "parts"),
    [
        ("train", "epochs", "  epoch: 20", ("train.epoch;", "did you mean train.epochs?", "1 more after this one")),
        ("train", "learning_rate", "  learning_rate: fast", ("train.learning_rate", "'fast'", "number")),
        ("train", "learning_rate", "  learning_rate: '1e-3'", ("train.learning_rate", "'1e-3'", "number")),
        ("train", "learning_rate", "  learning_rate: .nan", ("train.learning_rate", "nan", "finite")),
        ("train", "patience", "", ("train.patience is missing",)),
        ("train", "epochs", "  epochs: 20\n  epochs: 21", ("must be YAML", "duplicate key", "epochs")),
        ("evaluate", "pictures", "  pictures: 3\nevaluated: {}", ("evaluated;", "did you mean evaluate?")),
        ("phantom", "layout", "  layout: brats", ("phantom.layout", "'msd', 'brats2021'", "'brats'")),
        ("phantom", "layout", "", ("phantom.layout is missing",)),
        ("phantom", "shape", "  shape: [48, 48]", ("phantom.shape",)),
        ("phantom", "shape", "  shape: [48, 48, 4.5]", ("phantom.shape.2", "4.5")),
        ("phantom", "shape", "  shape: 48", ("phantom.shape", "48")),
        ("data", "split", "  split: {train: 0.8, val: 0.15, test: 0.15, seed: 0}", ("data.split", "be 1, got 1.1")),
        ("model", "groups", "  groups: 5", ("model: groups must divide base_filters", "groups 5, base_filters")),
        ("model", "kernel_size", "  kernel_size: 2", ("model: kernel_size must be odd", "got 2")),
    ],
)
def test_a_file_that_does_not_fit_is_one_line(load, section, key, line, parts):
    message = refused(load, section, key, line)
    assert message.startswith("params.yaml: ") or "params.yaml must be YAML" in message
    assert all(part in message for part in parts), message


def test_the_first_of_several_findings_says_how_many_follow(load):
    assert refused(load, "model", "groups", "  group: 4\n  layers: 3").endswith("; 2 more after this one")


@pytest.mark.parametrize("text", ["", "3\n", "- train\n", "just words\n"])
def test_a_file_without_sections_is_refused(tmp_path, text):
    path = tmp_path / "params.yaml"
    path.write_text(text)
    assert "must hold sections" in refused(load_params, path)


@pytest.mark.parametrize("text", ["train: {", "\t- x", "a: 1\n---\nb: 2\n", "a: *none\n"])
def test_what_is_no_yaml_is_refused_with_its_path(tmp_path, text):
    path = tmp_path / "broken.yaml"
    path.write_text(text)
    assert str(path) in refused(load_params, path)


def test_a_file_that_is_missing_is_refused_with_its_path(tmp_path):
    assert str(tmp_path / "none.yaml") in refused(load_params, tmp_path / "none.yaml")


def test_a_file_that_is_no_text_is_refused_with_its_path(tmp_path):
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"train: \xff\xfe\x00")
    assert str(binary) in refused(load_params, binary)


def test_a_folder_is_refused_with_its_path(tmp_path):
    assert str(tmp_path) in refused(load_params, tmp_path)


# ---- Overriding ----


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("train.epoch=3", ("train.epoch;", "did you mean train.epochs?")),
        ("trian.epochs=3", ("trian.epochs;", "did you mean train.epochs?")),
        ("qwertz=3", ("qwertz;", "params.yaml lists every key")),
        ("train.epochs=three", ("train.epochs", "'three'", "valid integer")),
        ("train.epochs=1.5", ("train.epochs", "1.5", "integer")),
        ("train.epochs=2.0", ("train.epochs", "2.0", "integer")),
        ("train.epochs=true", ("train.epochs", "True", "integer")),
        ("train.epochs=", ("train.epochs", "None", "integer")),
        ("train.epochs=[1]", ("train.epochs", "[1]", "integer")),
        ("train.epochs=0", ("train.epochs", "got 0", "greater than or equal to 1")),
        ("train.learning_rate=0", ("train.learning_rate", "got 0", "greater than 0")),
        ("train.learning_rate=.inf", ("train.learning_rate", "inf", "finite")),
        ("train.beta_2=1", ("train.beta_2", "got 1", "less than 1")),
        ("train.amsgrad=1", ("train.amsgrad", "got 1", "boolean")),
        ("train=5", ("train", "got 5")),
        ("model.norm=layer", ("model.norm", "'layer'", "'batch', 'group', 'instance' or 'none'")),
        ("model.depth=7", ("model.depth", "got 7", "less than or equal to 6")),
        ("data.split.val=0.5", ("data.split", "must be 1", "1.35")),
        ("data.split.val=0", ("data.split.val", "got 0", "greater than 0")),
        ("data.root=3", ("data.root", "got 3", "string")),
        ("predict.threshold=1", ("predict.threshold", "got 1", "less than 1")),
        ("tune.sampler.name=sobol", ("tune.sampler.name", "'sobol'", "'gp', 'cmaes' or 'nsga2'")),
        ("tune.sampler.name=grid", ("sampler grid takes every value", "train.learning_rate has no step")),
        ("tune.sampler.name=cmaes", ("sampler cmaes needs at least two numbers", "got 1; use tpe or gp")),
        ("tune.scheduler.name=pbt", ("pbt begins all trials before", "use sampler random, or", "got tpe")),
        ("tune.sampler.name=nsga2", ("nsga2 is for two objectives", "set tune.second_objective")),
        ("tune.second_objective=seconds", ("scheduler asha compares trials by their Dice alone", "use none")),
        ("tune.second_objective=flops", ("tune.second_objective", "'flops'", "'seconds' or 'parameters'")),
        ("tune.devices_per_trial=1.5", ("devices_per_trial must be a whole number from 1 on, got 1.5",)),
        ("tune.devices_per_trial=0.7", ("must be one part of several, as 0.5 or 0.25, got 0.7",)),
        ("tune.devices_per_trial=0", ("tune.devices_per_trial", "greater than or equal to 0.01", "got 0")),
        ("tune.data_memory_share=1", ("tune.data_memory_share", "less than 1", "got 1")),
        ("tune.start.points=[{model.depth: 3}]", ("may set what the space has, got model.depth",)),
        ("tune.start.points=[{train.learning_rate: 1}]", ("must lie in the space, got train.learning_rate = 1",)),
        ("tune.target_dice=1.5", ("tune.target_dice", "got 1.5", "less than 1")),
        ("tune.hours=0", ("tune.hours", "got 0", "greater than 0")),
        ("tune.scheduler.reduction_factor=1", ("tune.scheduler.reduction_factor", "got 1", "equal to 2")),
        ("scaling.devices=[2, 4]", ("scaling", "devices must rise from 1", "[2, 4]")),
        ("scaling.devices=[2, 1]", ("scaling", "devices must rise from 1", "[2, 1]")),
        ("scaling.devices=[1, 1]", ("scaling", "devices must rise from 1", "[1, 1]")),
        ("scaling.devices=[]", ("scaling.devices", "[]")),
        ("scaling.devices=[1, 3]", ("scaling: trials must be at least as many as the 3 devices", "got 2")),
        ("scaling.modes=[data, data]", ("scaling: modes must be different", "data")),
        ("scaling.modes=[all]", ("scaling.modes.0", "all")),
        ("scaling.target_dice=1", ("scaling.target_dice", "less than 1")),
    ],
)
def test_an_override_that_does_not_fit_names_key_value_and_rule(override, parts):
    message = refused(load_params, FILE, [*KNOWN, override])
    assert all(part in message for part in parts), message


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("data.multiple=4", ("data.multiple must be a multiple of 2**model.depth * model.stem_stride = 8", "got 4")),
        ("model.depth=4", ("data.multiple must be a multiple of 2**model.depth * model.stem_stride = 16", "got 8")),
        (
            "distribute.workers=3",
            (
                "train.batch_size must be a multiple of distribute.workers * distribute.devices_per_worker = 3",
                "got 2; the next that fits is 3",
            ),
        ),
        ("tune.allocation=elastic tune.devices_per_trial=0.5", ("devices_per_trial must be at least 1, got 0.5",)),
        ("tune.allocation=elastic tune.sampler.name=random tune.scheduler.name=pbt", ("pbt", "use asha")),
        (
            "tune.allocation=elastic distribute.batch_rule=per_replica_batch",
            ("needs distribute.batch_rule fixed_global_batch, got per_replica_batch",),
        ),
        ("distribute.kind=none distribute.workers=2", ("distribute: kind none is for one device", "got 2")),
        ("distribute.kind=mirrored distribute.workers=2", ("distribute: kind mirrored is for one worker", "got 2")),
        ("distribute.min_workers=2", ("min_workers must be at most workers = 1", "got 2")),
        ("distribute.lr_scaling=linear", ("lr_scaling must be none with batch_rule fixed_global_batch", "got linear")),
        ("distribute.heartbeat_s=1", ("distribute.heartbeat_s", "got 1")),
        (
            "distribute.kind=mirrored train.jit_compile=true",
            ("train.jit_compile must be false where a strategy", "devices_per_worker = 1)", "XLA compiles no"),
        ),
        (
            "distribute.workers=2 train.accumulate_steps=2",
            ("train.accumulate_steps must be 1", "devices_per_worker = 2), got 2", "take a larger train.batch_size"),
        ),
        (
            "distribute.workers=2 train.precision=mixed_float16",
            ("train.precision must be float32 or mixed_bfloat16", "devices_per_worker = 2), got mixed_float16"),
        ),
    ],
)
def test_fields_that_do_not_fit_each_other_are_named_together(override, parts):
    message = refused(load_params, FILE, [*KNOWN, *override.split()])
    assert all(part in message for part in parts), message


@pytest.mark.parametrize(
    ("values", "devices", "parts"),
    [
        ({}, 4, ("train.batch_size must be a multiple of scaling.devices = 4, got 2; the next that fits is 4",)),
        ({"train.jit_compile": True}, 2, ("train.jit_compile must be false", "(scaling.devices = 2)")),
        ({"train.precision": "mixed_float16"}, 2, ("float32 or mixed_bfloat16", "got mixed_float16")),
    ],
)
def test_who_spreads_a_training_otherwise_checks_it_for_that(values, devices, parts):
    params = load_params(FILE, KNOWN).override(values)
    params.check_spread("scaling.devices", 1)
    message = refused(params.check_spread, "scaling.devices", devices)
    assert all(part in message for part in parts), message


def test_with_a_batch_for_each_replica_any_number_of_devices_fits():
    load_params(FILE, KNOWN).override({"distribute.batch_rule": "per_replica_batch"}).check_spread("n", 7)


def test_values_are_checked_together():
    deeper = load_params(FILE, KNOWN).override({"model.depth": 4, "data.multiple": 16})
    assert (deeper.model.depth, deeper.data.multiple) == (4, 16)


@pytest.mark.parametrize("text", ["train.epochs", "", "=3", " =3"])
def test_an_override_without_name_or_sign_is_refused(text):
    assert repr(text) in refused(parse_override, text)


@pytest.mark.parametrize("text", ["train.epochs=[1", "train.epochs={a", "train.epochs='1"])
def test_an_override_that_is_no_yaml_is_refused(text):
    message = refused(parse_override, text)
    assert "train.epochs" in message
    assert repr(text.partition("=")[2]) in message


def test_an_equals_sign_in_the_value_belongs_to_it():
    assert parse_override("data.root=a=b") == ("data.root", "a=b")


def test_an_override_changes_that_value_alone(params):
    other = params.override({"train.learning_rate": 0.25})
    assert other.train.learning_rate == 0.25
    before, after = params.flatten(), other.flatten()
    assert {name for name in before if before[name] != after[name]} == {"train.learning_rate"}
    assert params.flatten() == load_params(FILE).flatten()


def test_a_key_with_dots_of_its_own_is_reached():
    params = load_params(
        FILE,
        [
            *KNOWN,
            "tune.space={train.learning_rate: {type: float, low: 1e-3, high: 1.0}, "
            "model.norm: {type: choice, values: [batch]}}",
        ],
    )
    other = params.override({"tune.space.train.learning_rate.low": 0.002, "tune.space.model.norm.values": ["none"]})
    assert other.tune.space["train.learning_rate"].low == 0.002
    assert other.tune.space["model.norm"].values == ("none",)
    whole = params.override({"tune.space": {"train.beta_1": {"type": "float", "low": 0.5, "high": 0.9}}})
    assert list(whole.tune.space) == ["train.beta_1"]


# ---- Flattening ----


def test_flat_names_are_those_that_override_takes_and_change_nothing(params):
    flat = params.flatten()
    assert flat["train.learning_rate"] == params.train.learning_rate
    assert flat["phantom.shape"] == str(list(params.phantom.shape))
    assert {"data.split.seed", "tune.sampler.name", "scaling.trials"} <= set(flat)
    lists = {name for name, value in flat.items() if isinstance(value, str) and value.startswith("[")}
    assert params.override({name: value for name, value in flat.items() if name not in lists}) == params


def test_every_value_of_the_file_has_its_flat_name(params):
    def names(node, prefix=""):
        if not isinstance(node, dict):
            return {prefix[:-1]}
        return {name for key, value in node.items() for name in names(value, f"{prefix}{key}.")}

    written, flat = names(YAML(typ="safe").load(TEXT)), set(params.flatten())
    assert written <= flat
    # A range may leave these two out.
    assert {name.rpartition(".")[2] for name in flat - written} <= {"log", "step"}


@given(
    rate=st.floats(min_value=1e-300, max_value=1e300, allow_subnormal=False),
    epochs=st.integers(min_value=1, max_value=10**9),
    amsgrad=st.booleans(),
)
def test_what_is_written_is_what_is_read(rate, epochs, amsgrad):
    texts = [f"train.learning_rate={rate!r}", f"train.epochs={epochs}", f"train.amsgrad={str(amsgrad).lower()}"]
    params = load_params(FILE, texts)
    assert (params.train.learning_rate, params.train.epochs, params.train.amsgrad) == (rate, epochs, amsgrad)


# ---- Frozen ----


def test_nothing_can_be_assigned():
    params = load_params(FILE, KNOWN)
    with pytest.raises(ValidationError, match="frozen"):
        params.train = None
    with pytest.raises(ValidationError, match="frozen"):
        params.train.epochs = 3
    with pytest.raises(ValidationError, match="frozen"):
        params.tune.space["train.learning_rate"].low = 0.0


# ---- What trials may set ----


@pytest.mark.parametrize(
    ("space", "parts"),
    [
        ({"train.rate": {"type": "float", "low": 0.1, "high": 1.0}}, ("train.rate", "must exist")),
        ({"tune.epochs": {"type": "int", "low": 1, "high": 2}}, ("tune.epochs", "model or train")),
        ({"train.beta_1": {"type": "float", "low": 0.5, "high": 1.0}}, ("train.beta_1", "got 1.0", "less than 1")),
        ({"train.beta_1": {"type": "float", "low": -0.5, "high": 0.5}}, ("train.beta_1", "got -0.5")),
        ({"train.beta_1": {"type": "float", "low": 0.5, "high": 0.5}}, ("train.beta_1", "low must be below high")),
        ({"train.beta_1": {"type": "float", "low": 0.0, "high": 0.5, "log": True}}, ("low must be above 0", "got 0")),
        (
            {"train.beta_1": {"type": "float", "low": 0.1, "high": 0.5, "log": True, "step": 0.1}},
            ("train.beta_1", "step and log exclude each other"),
        ),
        ({"train.beta_1": {"type": "flaot", "low": 0.1, "high": 0.5}}, ("train.beta_1", "flaot", "'float'")),
        ({"train.beta_1": {"low": 0.1, "high": 0.5}}, ("train.beta_1", "type")),
        ({"train.beta_1": {"type": "float", "low": 0.1}}, ("train.beta_1.high is missing",)),
        ({"train.beta_1": {"type": "float", "low": 0.1, "high": 0.5, "lgo": True}}, ("train.beta_1.lgo",)),
        ({"train.epochs": {"type": "int", "low": 1.5, "high": 3}}, ("train.epochs.low", "1.5", "integer")),
        ({"model.norm": {"type": "choice", "values": ["batch", "layer"]}}, ("model.norm", "'layer'")),
        ({"model.norm": {"type": "choice", "values": []}}, ("model.norm.values", "[]")),
        ({"model.groups": {"type": "choice", "values": [4, 3]}}, ("groups must divide base_filters", "groups 3")),
        (
            {"model.depth": {"type": "int", "low": 2, "high": 4}},
            ("data.multiple", "2**model.depth * model.stem_stride = 16"),
        ),
        # Not the bounds but what lies between them cannot be built.
        ({"model.kernel_size": {"type": "int", "low": 3, "high": 5}}, ("kernel_size must be odd", "got 4")),
    ],
)
def test_a_search_over_what_cannot_be_is_refused_beforehand(space, parts):
    message = refused(load_params(FILE, KNOWN).override, {"tune.space": space})
    assert all(part in message for part in ("tune.space", *parts)), message


NORM = {"type": "choice", "values": ["batch", "group"]}
GROUPS = {"type": "choice", "values": [2, 4], "when": {"model.norm": "group"}}


@pytest.mark.parametrize(
    ("space", "sampler", "parts"),
    [
        ({"model.groups": GROUPS}, "tpe", ("model.groups is searched when model.norm has", "must stand before it")),
        (
            {"model.norm": {"type": "choice", "values": ["batch"]}, "model.groups": GROUPS},
            "tpe",
            ("model.groups is searched when model.norm is 'group', which model.norm never is",),
        ),
        ({"model.norm": {"type": "fixed", "value": "group"}}, "tpe", ("a parameter that is searched",)),
        ({"model.norm": NORM, "model.groups": GROUPS}, "grid", ("model.groups has a condition; use tpe",)),
        ({"model.norm": NORM, "model.groups": GROUPS}, "gp", ("model.groups has a condition; use tpe",)),
        ({"model.norm": NORM}, "cmaes", ("cmaes searches numbers: model.norm is a choice",)),
    ],
)
def test_a_space_that_does_not_fit_itself_or_its_sampler_is_refused(space, sampler, parts):
    values = {"tune.space": space, "tune.sampler.name": sampler}
    message = refused(load_params(FILE, KNOWN).override, values)
    assert all(part in message for part in ("params: tune: ", *parts)), message


def test_a_condition_may_name_several_values_and_fixed_ones(params):
    space = {
        "train.amsgrad": {"type": "fixed", "value": True},
        "model.norm": {"type": "choice", "values": ["batch", "group", "none"]},
        "model.groups": {**GROUPS, "when": {"model.norm": "group", "train.amsgrad": True}},
        "train.beta_2": {"type": "float", "low": 0.9, "high": 0.99, "when": {"model.norm": ["batch", "none"]}},
    }
    assert list(params.override({"tune.space": space}).tune.space) == list(space)


LEARNING_RATE = {"train.learning_rate": {"type": "float", "low": 1e-4, "high": 1e-2, "log": True}}
NORM = {"model.norm": {"type": "choice", "values": ["batch", "group"]}}


@pytest.mark.parametrize(
    ("values", "parts"),
    [
        ({"space": LEARNING_RATE | NORM}, ("pbt changes parameters in the middle", "got model.norm; use asha")),
        ({"space": LEARNING_RATE, "num_samples": 3}, ("needs a population", "at least 4, got 3")),
        ({"space": LEARNING_RATE, "epochs": 2}, ("must be below epochs = 2, got 2",)),
        ({"space": LEARNING_RATE, "second_objective": "seconds"}, ("pbt compares trials by their Dice alone",)),
    ],
)
def test_a_population_that_cannot_be_is_refused(params, values, parts):
    population = {"tune.scheduler.name": "pbt", "tune.sampler.name": "random"}
    message = refused(params.override, population | {f"tune.{name}": value for name, value in values.items()})
    assert all(part in message for part in parts), message


@pytest.mark.parametrize("sampler", ["gp", "cmaes"])
def test_a_sampler_of_one_objective_is_refused_for_two(params, sampler):
    space = LEARNING_RATE | {"train.beta_1": {"type": "float", "low": 0.5, "high": 0.95}}
    two = {"tune.space": space, "tune.scheduler.name": "none", "tune.second_objective": "seconds"}
    params.override(two)
    message = refused(params.override, two | {"tune.sampler.name": sampler})
    assert f"sampler {sampler} has one objective: use nsga2 or tpe" in message


@pytest.mark.parametrize(
    ("one", "inside", "outside"),
    [
        ({"type": "float", "low": 0.1, "high": 0.5}, [0.1, 0.3, 0.5], [0.09, 0.51, "0.3", True]),
        ({"type": "float", "low": 0.1, "high": 0.5, "step": 0.2}, [0.1, 0.3, 0.5], [0.2]),
        ({"type": "int", "low": 2, "high": 8, "step": 3}, [2, 5, 8], [3, 11, 5.0, True]),
        ({"type": "choice", "values": [1, "batch", False]}, [1, "batch", False], [True, 0, "group"]),
    ],
)
def test_a_distribution_takes_its_own_values(one, inside, outside):
    own = TypeAdapter(Distribution).validate_python(one)
    assert all(own.contains(value) for value in inside)
    assert not any(own.contains(value) for value in outside)


def test_a_starting_point_lies_in_the_space(params):
    space = {"tune.space": LEARNING_RATE | NORM}
    assert params.override(space | {"tune.start.points": [{"model.norm": "batch"}]}).tune.start.points
    for point, part in (({"model.norm": "none"}, "model.norm = 'none'"), ({"train.learning_rate": 1.0}, "= 1.0")):
        message = refused(params.override, space | {"tune.start.points": [point]})
        assert f"a starting point must lie in the space, got {next(iter(point))}" in message
        assert part in message
    grid = {"tune.space": NORM, "tune.sampler.name": "grid"}
    message = refused(params.override, grid | {"tune.start.points": [{"model.norm": "batch"}]})
    assert "sampler grid takes every point once" in message


def test_the_recipe_is_a_set_of_parameters_and_its_search_one_over_most_of_it():
    recipe = load_params(ROOT / "pipelines" / "recipe.yaml")
    assert (recipe.train.loss, recipe.model.norm, recipe.model.multiple) == ("dice_cross_entropy", "instance", 8)
    assert {"train.loss", "model.norm", "model.depth", "model.base_filters", "train.learning_rate_decay"} <= set(
        recipe.tune.space
    )
    real = load_params(ROOT / "pipelines" / "nnunet.yaml")
    assert real.model.filters == (32, 64, 128, 256, 320, 320)
    assert real.train.patch_size == (128, 128, 128)


def test_the_papers_grid_has_32_points():
    paper = load_params(ROOT / "pipelines" / "paper.yaml")
    assert number_of_trials(paper.tune.sampler, paper.tune.space, 100) == paper.tune.num_samples == 32
    assert set(paper.tune.space) == {"train.learning_rate", "model.norm", "train.beta_2", "train.amsgrad"}
    assert (paper.data.target, paper.data.fit, paper.tune.scheduler.name) == ("whole_tumor", "crop", "none")


def test_a_batch_that_cannot_be_spread_over_a_trials_devices_is_refused_beforehand():
    space = {"train.batch_size": {"type": "int", "low": 2, "high": 4}}
    params = load_params(FILE, KNOWN).override({"tune.space": space})
    message = refused(params.override, {"tune.devices_per_trial": 2})
    assert message.startswith("params: tune.space: train.batch_size must be a multiple of tune.devices_per_trial = 2")
    assert "got 3" in message


def test_a_range_with_a_step_is_checked_at_its_steps(params):
    space = {"model.kernel_size": {"type": "int", "low": 1, "high": 5, "step": 2}}
    assert params.override({"tune.space": space}).tune.space["model.kernel_size"].step == 2


@pytest.mark.parametrize(
    ("trials", "parts"),
    [
        ([{"train.rate": 0.1}], ("scaling.trials[0]", "train.rate", "must exist")),
        ([{}, {"train.learning_rate": 0}], ("scaling.trials[1]", "train.learning_rate", "got 0")),
        ([{"evaluate.pictures": 1}], ("scaling.trials[0]", "evaluate.pictures", "model or train")),
        ([{"model.groups": 3}], ("scaling.trials[0]", "groups must divide base_filters")),
        ([{"train.learning_rate": [0.1]}], ("scaling.trials.0.train.learning_rate", "[0.1]")),
        ([], ("scaling.trials", "[]")),
    ],
)
def test_a_scaling_trial_that_cannot_be_is_refused_beforehand(params, trials, parts):
    message = refused(params.override, {"scaling.devices": [1], "scaling.trials": trials})
    assert all(part in message for part in parts), message


def test_a_trial_must_fit_the_devices_that_it_has_and_no_others(params):
    trials = {"scaling.devices": [1, 4], "scaling.trials": [{"train.batch_size": 2}] * 4}
    assert params.override({**trials, "scaling.modes": ["experiment", "elastic"]}).scaling.largest_each == 1
    message = refused(params.override, {**trials, "scaling.modes": ["data"]})
    assert "train.batch_size must be a multiple of the devices of a trial = 4, got 2" in message


def test_a_trial_whose_values_fit_only_together_is_taken(params):
    trials = [{"model.groups": 3, "model.base_filters": 9}]
    assert params.override({"scaling.devices": [1], "scaling.trials": trials}).scaling.trials
